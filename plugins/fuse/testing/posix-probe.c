/* System calls that neither Node nor the usual programs make: one per sub-command. Prints errno names' numbers. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static int say(int result) {
  printf("%d\n", result < 0 ? errno : 0);
  return 0;
}

/* Writes through a shared mapping, closes the descriptor first, then syncs. */
static int map_write(const char *path, const char *text) {
  int fd = open(path, O_RDWR);
  if (fd < 0) return say(-1);
  char *map = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (map == MAP_FAILED) return say(-1);
  close(fd);
  memcpy(map + 4090, text, strlen(text));
  if (msync(map, 8192, MS_SYNC) < 0) return say(-1);
  return say(munmap(map, 8192));
}

static int lock_range(const char *path, long start, long length, int hold) {
  struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = start, .l_len = length};
  int fd = open(path, O_RDWR);
  if (fd < 0) return say(-1);
  int result = fcntl(fd, F_SETLK, &lock);
  say(result);
  fflush(stdout);
  if (result == 0 && hold) (void)getchar();
  return 0;
}

int main(int count, char **words) {
  if (count < 3) return 2;
  const char *command = words[1], *path = words[2];
  if (!strcmp(command, "rename") && count == 5)
    return say(syscall(SYS_renameat2, AT_FDCWD, path, AT_FDCWD, words[3], atoi(words[4])));
  if (!strcmp(command, "map") && count == 4) return map_write(path, words[3]);
  if (!strcmp(command, "lock") && count == 6)
    return lock_range(path, atol(words[3]), atol(words[4]), atoi(words[5]));
  if (!strcmp(command, "seek") && count == 5) {
    int fd = open(path, O_RDONLY);
    printf("%ld\n", (long)lseek(fd, atol(words[3]), !strcmp(words[4], "data") ? SEEK_DATA : SEEK_HOLE));
    return 0;
  }
  if (!strcmp(command, "zero") && count == 5) {
    int fd = open(path, O_RDWR);
    return say(fallocate(fd, FALLOC_FL_ZERO_RANGE, atol(words[3]), atol(words[4])));
  }
  if (!strcmp(command, "collapse")) {
    int fd = open(path, O_RDWR);
    return say(fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, 0, 4096));
  }
  return 2;
}
