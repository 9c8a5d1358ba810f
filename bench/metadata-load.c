/*
 * The load of W8: threads that make real system calls on names, each in a directory of its own (in one
 * directory the kernel would let only one change it at a time), in phases that all begin together.
 *
 *   metadata-load DIRECTORY THREADS SECONDS
 *
 * create: open(O_CREAT|O_EXCL) and close without data, for SECONDS; stat, rename (within the directory) and
 * delete: of every file made, once; stat three times. Before each stat round the kernel forgets names and
 * attributes, so that every stat reaches the file system. Prints "phase operations seconds" for each phase.
 * Ends with status 1 at the first call that fails.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum phase { CREATE, STAT, RENAME, DELETE };
static const char *const phase_names[] = {"create", "stat", "rename", "delete"};

#define THREAD_COUNT_MAX 1024
#define STAT_ROUNDS 3

struct worker {
  pthread_t thread;
  int number;
  long files;
};

static const char *top;
static int thread_count;
static double create_seconds;
static double end_at;
static enum phase phase;
static struct worker workers[THREAD_COUNT_MAX];
static pthread_barrier_t barrier;

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void fail(const char *what, const char *path) {
  fprintf(stderr, "%s %s: %s\n", what, path, strerror(errno));
  exit(1);
}

static void name_of(char *path, size_t size, const struct worker *worker, char kind, long file) {
  snprintf(path, size, "%s/d%d/%c%07ld", top, worker->number, kind, file);
}

static void create_files(struct worker *worker) {
  char path[4096];
  while (now() < end_at) {
    name_of(path, sizeof path, worker, 'f', worker->files);
    int descriptor = open(path, O_CREAT | O_EXCL | O_WRONLY, 0644);
    if (descriptor < 0 || close(descriptor) != 0) fail("create", path);
    worker->files++;
  }
}

static void visit_files(const struct worker *worker) {
  char path[4096], other[4096];
  struct stat status;
  for (long file = 0; file < worker->files; file++) {
    name_of(path, sizeof path, worker, phase == DELETE ? 'g' : 'f', file);
    if (phase == STAT) {
      if (stat(path, &status) != 0) fail("stat", path);
    } else if (phase == RENAME) {
      name_of(other, sizeof other, worker, 'g', file);
      if (rename(path, other) != 0) fail("rename", path);
    } else if (unlink(path) != 0)
      fail("unlink", path);
  }
}

static void *work(void *argument) {
  struct worker *worker = argument;
  for (;;) {
    pthread_barrier_wait(&barrier);
    if (phase == CREATE) create_files(worker);
    else visit_files(worker);
    pthread_barrier_wait(&barrier);
    if (phase == DELETE) return NULL;
    pthread_barrier_wait(&barrier);
  }
}

static void forget_names(void) {
  FILE *file = fopen("/proc/sys/vm/drop_caches", "w");
  if (file == NULL || fputs("2", file) < 0 || fclose(file) != 0) fail("write", "/proc/sys/vm/drop_caches");
}

static void run_phase(enum phase next) {
  double seconds = 0;
  long operations = 0;
  for (int round = 0; round < (next == STAT ? STAT_ROUNDS : 1); round++) {
    if (next == STAT) forget_names();
    phase = next;
    double begin = now();
    end_at = begin + create_seconds;
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    seconds += now() - begin;
    for (int number = 0; number < thread_count; number++) operations += workers[number].files;
    if (next != DELETE) pthread_barrier_wait(&barrier);
  }
  printf("%s %ld %.6f\n", phase_names[next], operations, seconds);
  fflush(stdout);
}

int main(int count, char **parameters) {
  if (count != 4) {
    fprintf(stderr, "usage: metadata-load DIRECTORY THREADS SECONDS\n");
    return 2;
  }
  top = parameters[1];
  thread_count = atoi(parameters[2]);
  create_seconds = atof(parameters[3]);
  if (thread_count < 1 || thread_count > THREAD_COUNT_MAX || create_seconds <= 0) return 2;
  pthread_barrier_init(&barrier, NULL, (unsigned)thread_count + 1);
  char path[4096];
  for (int number = 0; number < thread_count; number++) {
    workers[number].number = number;
    snprintf(path, sizeof path, "%s/d%d", top, number);
    if (mkdir(path, 0755) != 0) fail("mkdir", path);
    if (pthread_create(&workers[number].thread, NULL, work, &workers[number]) != 0) fail("thread", path);
  }
  for (enum phase next = CREATE; next <= DELETE; next++) run_phase(next);
  for (int number = 0; number < thread_count; number++) {
    pthread_join(workers[number].thread, NULL);
    snprintf(path, sizeof path, "%s/d%d", top, number);
    if (rmdir(path) != 0) fail("rmdir", path);
  }
  return 0;
}
