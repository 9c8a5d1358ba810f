/*
 * CRC32C (Castagnoli) with the processor's own instruction, for Node-API; compiled by scripts/bootstrap.sh.
 * core/wire/native-checksums.ts loads it and says what each function promises; where it is missing, or the processor
 * has no such instruction, @node-rs/crc32 does the same work in five times the time.
 *
 * The instruction takes eight bytes and three cycles, but a new one can begin in every cycle: a block is cut into
 * three lanes that are computed side by side. A CRC register is linear: that of A followed by B is the register
 * after A, moved on over as many zeros as B is long, XOR that of B begun with zero. Moving on over one and over two
 * lanes is a table look-up.
 */
#define NAPI_VERSION 8
#include <node_api.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)
#include <nmmintrin.h>
#define WITH_CRC __attribute__((target("sse4.2")))
#define CRC_8(crc, byte) _mm_crc32_u8((crc), (byte))
#define CRC_64(crc, word) ((uint32_t)_mm_crc32_u64((crc), (word)))
static bool has_instruction(void) { return __builtin_cpu_supports("sse4.2"); }
#elif defined(__aarch64__)
#include <arm_acle.h>
#include <sys/auxv.h>
#ifndef HWCAP_CRC32
#define HWCAP_CRC32 (1 << 7)
#endif
#define WITH_CRC __attribute__((target("+crc")))
#define CRC_8(crc, byte) __crc32cb((crc), (byte))
#define CRC_64(crc, word) __crc32cd((crc), (word))
static bool has_instruction(void) { return (getauxval(AT_HWCAP) & HWCAP_CRC32) != 0; }
#else
#error "no CRC32C instruction is known for this processor"
#endif

#define PAGE_BYTES 4096u
#define LANE_BYTES 1360u /* three of them in a page, a multiple of 8 */
#define POLYNOMIAL 0x82f63b78u /* reflected */
#define FORM 1

/* over_lanes[n - 1][i][b]: the register with byte i = b and zeros else, after n lanes of zeros. */
static uint32_t over_lanes[2][4][256];

static uint32_t zero_bit(uint32_t crc) { return (crc >> 1) ^ ((crc & 1) ? POLYNOMIAL : 0); }

static uint32_t over(int lanes, uint32_t crc)
{
  uint32_t(*table)[256] = over_lanes[lanes - 1];
  return table[0][crc & 255] ^ table[1][(crc >> 8) & 255] ^ table[2][(crc >> 16) & 255] ^ table[3][crc >> 24];
}

static void fill_tables(void)
{
  /* of_bit[n]: the register with bit n alone, after a lane of zeros; bit n becomes bit n - 1 with each zero bit. */
  uint32_t of_bit[32], crc = 1;
  for (size_t bit = 0; bit < 8 * LANE_BYTES - 31; bit++) crc = zero_bit(crc);
  for (int bit = 31; bit >= 0; bit--, crc = zero_bit(crc)) of_bit[bit] = crc;
  for (int byte = 0; byte < 4; byte++)
    for (int value = 0; value < 256; value++) {
      crc = 0;
      for (int bit = 0; bit < 8; bit++)
        if (value & (1 << bit)) crc ^= of_bit[8 * byte + bit];
      over_lanes[0][byte][value] = crc;
    }
  for (int byte = 0; byte < 4; byte++)
    for (int value = 0; value < 256; value++) over_lanes[1][byte][value] = over(1, over_lanes[0][byte][value]);
}

static uint64_t word_at(const uint8_t *bytes)
{
  uint64_t word;
  memcpy(&word, bytes, 8);
  return word;
}

/* The register, without the inversions before and after. */
WITH_CRC static uint32_t advance(uint32_t crc, const uint8_t *bytes, size_t length)
{
  for (; length >= 3 * LANE_BYTES; bytes += 3 * LANE_BYTES, length -= 3 * LANE_BYTES) {
    uint32_t second = 0, third = 0;
    for (size_t at = 0; at < LANE_BYTES; at += 8) {
      crc = CRC_64(crc, word_at(bytes + at));
      second = CRC_64(second, word_at(bytes + LANE_BYTES + at));
      third = CRC_64(third, word_at(bytes + 2 * LANE_BYTES + at));
    }
    crc = over(2, crc) ^ over(1, second) ^ third;
  }
  for (; length >= 8; bytes += 8, length -= 8) crc = CRC_64(crc, word_at(bytes));
  for (; length > 0; bytes++, length--) crc = CRC_8(crc, *bytes);
  return crc;
}

static uint32_t checksum(const uint8_t *bytes, size_t length) { return ~advance(~0u, bytes, length); }

/* --- Node-API --- */

static napi_value refuse(napi_env env, const char *message)
{
  napi_throw_type_error(env, NULL, message);
  return NULL;
}

/* A view of bytes or of u32; its length in bytes. */
static bool get_view(napi_env env, napi_value value, uint8_t **data, size_t *length)
{
  napi_typedarray_type type;
  size_t count;
  if (napi_get_typedarray_info(env, value, &type, &count, (void **)data, NULL, NULL) != napi_ok) return false;
  if (type != napi_uint8_array && type != napi_uint32_array) return false;
  *length = type == napi_uint32_array ? 4 * count : count;
  return true;
}

static napi_value crc32c(napi_env env, napi_callback_info info)
{
  napi_value arguments[2], result;
  size_t count = 2, length;
  uint8_t *bytes;
  uint32_t seed;
  napi_get_cb_info(env, info, &count, arguments, NULL, NULL);
  if (!get_view(env, arguments[0], &bytes, &length) || napi_get_value_uint32(env, arguments[1], &seed) != napi_ok)
    return refuse(env, "crc32c(bytes, seed)");
  napi_create_uint32(env, ~advance(~seed, bytes, length), &result);
  return result;
}

struct pages {
  uint8_t *bytes, *table;
  size_t length, entries;
  uint32_t offset; /* of the first byte in its page */
};

static bool get_pages(napi_env env, napi_callback_info info, struct pages *pages)
{
  napi_value arguments[3];
  size_t count = 3, table_length;
  napi_get_cb_info(env, info, &count, arguments, NULL, NULL);
  if (!get_view(env, arguments[0], &pages->bytes, &pages->length)) return false;
  if (napi_get_value_uint32(env, arguments[1], &pages->offset) != napi_ok || pages->offset >= PAGE_BYTES) return false;
  if (!get_view(env, arguments[2], &pages->table, &table_length)) return false;
  pages->entries = pages->length == 0 ? 0 : (pages->offset + pages->length - 1) / PAGE_BYTES + 1;
  return table_length / 4 >= pages->entries;
}

/* The part of the buffer in page `index` of those it touches. */
static uint32_t checksum_of(const struct pages *pages, size_t index)
{
  size_t begin = index == 0 ? 0 : index * PAGE_BYTES - pages->offset;
  size_t end = (index + 1) * PAGE_BYTES - pages->offset;
  return checksum(pages->bytes + begin, (end < pages->length ? end : pages->length) - begin);
}

static napi_value fill(napi_env env, napi_callback_info info)
{
  struct pages pages;
  napi_value result;
  if (!get_pages(env, info, &pages)) return refuse(env, "fill(bytes, offset in page, table)");
  for (size_t index = 0; index < pages.entries; index++) {
    uint32_t found = checksum_of(&pages, index);
    memcpy(pages.table + 4 * index, &found, 4);
  }
  napi_create_uint32(env, (uint32_t)pages.entries, &result);
  return result;
}

static napi_value verify(napi_env env, napi_callback_info info)
{
  struct pages pages;
  napi_value result;
  int32_t first_wrong = -1;
  if (!get_pages(env, info, &pages)) return refuse(env, "verify(bytes, offset in page, table)");
  for (size_t index = 0; index < pages.entries && first_wrong < 0; index++) {
    uint32_t expected;
    memcpy(&expected, pages.table + 4 * index, 4);
    if (checksum_of(&pages, index) != expected) first_wrong = (int32_t)index;
  }
  napi_create_int32(env, first_wrong, &result);
  return result;
}

NAPI_MODULE_INIT()
{
  static const struct {
    const char *name;
    napi_callback call;
  } functions[] = {{"crc32c", crc32c}, {"fill", fill}, {"verify", verify}};
  napi_value value;
  if (!has_instruction()) return exports;
  fill_tables();
  for (size_t at = 0; at < sizeof functions / sizeof *functions; at++) {
    napi_create_function(env, functions[at].name, NAPI_AUTO_LENGTH, functions[at].call, NULL, &value);
    napi_set_named_property(env, exports, functions[at].name, value);
  }
  napi_create_uint32(env, FORM, &value);
  napi_set_named_property(env, exports, "form", value);
  return exports;
}
