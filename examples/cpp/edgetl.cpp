// See edgetl.h. In order: errors, SHA-256, JSON, EXIF, JPEG, PNG, decoding, resize, bundle, model,
// self-test, and the C interface.
#include "edgetl.h"

#include <onnxruntime_cxx_api.h>

#if defined(__GNUC__) && defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#elif defined(__GNUC__) && defined(__aarch64__) && defined(__linux__)
#include <arm_neon.h>
#include <sys/auxv.h>
#endif

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <csetjmp>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <future>
#include <limits>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <jpeglib.h>
#include <png.h>
#include <zlib.h>

namespace {

using Bytes = std::string_view;
using Pixels = std::vector<uint8_t>;
namespace fs = std::filesystem;

constexpr uint64_t kMaxPixels = 100'000'000;

// ---- Errors ----

struct Failure {
    edgetl_code code;
    std::string message;
};

[[noreturn]] void bad_photo(const std::string &reason) { throw Failure{EDGETL_BAD_PHOTO, reason}; }
[[noreturn]] void bad_model(const std::string &reason) { throw Failure{EDGETL_BAD_MODEL, reason}; }

edgetl_code report_error(edgetl_error *error, edgetl_code code, Bytes message) {
    if (error) {
        size_t size = std::min(message.size(), sizeof error->message - 1);
        if (size < message.size())
            while (size && (message[size] & 0xC0) == 0x80) --size;  // not inside a character
        std::memcpy(error->message, message.data(), size);
        error->message[size] = 0;
        error->code = code;
    }
    return code;
}

// Run `work`, and turn whatever it throws into a code: no exception may cross the C interface.
edgetl_code guarded(edgetl_error *error, const std::function<void()> &work) noexcept {
    try {
        work();
        return report_error(error, EDGETL_OK, "");
    } catch (const Failure &failure) {
        return report_error(error, failure.code, failure.message);
    } catch (const std::bad_alloc &) {
        return report_error(error, EDGETL_OUT_OF_MEMORY, "there is not enough memory");
    } catch (const std::exception &failure) {
        return report_error(error, EDGETL_RUN_FAILED, failure.what());
    } catch (...) {
        return report_error(error, EDGETL_RUN_FAILED, "an unknown error");
    }
}

// ---- SHA-256 ----

alignas(16) constexpr uint32_t kSha256[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4,
    0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe,
    0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f,
    0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7,
    0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc,
    0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b,
    0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116,
    0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7,
    0xc67178f2};

// Processors with instructions for it hash a model in a tenth of the time.
#if defined(__GNUC__) && defined(__x86_64__)
#define EDGETL_SHA_INSTRUCTIONS
bool has_sha_instructions() {
    unsigned a, b = 0, c, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b >> 29 & 1);
}

__attribute__((target("sha,sse4.1"))) void compress_fast(uint32_t *state, const uint8_t *block) {
    const __m128i big_endian = _mm_set_epi64x(0x0C0D0E0F08090A0B, 0x0405060700010203);
    auto four = [](const void *values) {
        return _mm_loadu_si128(static_cast<const __m128i *>(values));
    };
    __m128i low = _mm_shuffle_epi32(four(state), 0xB1);
    __m128i high = _mm_shuffle_epi32(four(state + 4), 0x1B);
    __m128i abef = _mm_alignr_epi8(low, high, 8), cdgh = _mm_blend_epi16(high, low, 0xF0);
    const __m128i abef_before = abef, cdgh_before = cdgh;
    __m128i w[16];
    for (int i = 0; i < 16; ++i) {
        if (i < 4)
            w[i] = _mm_shuffle_epi8(four(block + 16 * i), big_endian);
        else
            w[i] = _mm_sha256msg2_epu32(_mm_add_epi32(_mm_sha256msg1_epu32(w[i - 4], w[i - 3]),
                                                      _mm_alignr_epi8(w[i - 1], w[i - 2], 4)),
                                        w[i - 1]);
        __m128i sum = _mm_add_epi32(w[i], four(kSha256 + 4 * i));
        cdgh = _mm_sha256rnds2_epu32(cdgh, abef, sum);
        abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(sum, 0x0E));
    }
    low = _mm_shuffle_epi32(_mm_add_epi32(abef, abef_before), 0x1B);
    high = _mm_shuffle_epi32(_mm_add_epi32(cdgh, cdgh_before), 0xB1);
    _mm_storeu_si128(reinterpret_cast<__m128i *>(state), _mm_blend_epi16(low, high, 0xF0));
    _mm_storeu_si128(reinterpret_cast<__m128i *>(state + 4), _mm_alignr_epi8(high, low, 8));
}
#elif defined(__GNUC__) && defined(__aarch64__) && defined(__linux__)
#define EDGETL_SHA_INSTRUCTIONS
bool has_sha_instructions() { return getauxval(AT_HWCAP) & HWCAP_SHA2; }

__attribute__((target("+sha2"))) void compress_fast(uint32_t *state, const uint8_t *block) {
    const uint32x4_t abcd_before = vld1q_u32(state), efgh_before = vld1q_u32(state + 4);
    uint32x4_t abcd = abcd_before, efgh = efgh_before, w[16];
    for (int i = 0; i < 16; ++i) {
        if (i < 4)
            w[i] = vreinterpretq_u32_u8(vrev32q_u8(vld1q_u8(block + 16 * i)));
        else
            w[i] = vsha256su1q_u32(vsha256su0q_u32(w[i - 4], w[i - 3]), w[i - 2], w[i - 1]);
        const uint32x4_t sum = vaddq_u32(w[i], vld1q_u32(kSha256 + 4 * i)), before = abcd;
        abcd = vsha256hq_u32(abcd, efgh, sum);
        efgh = vsha256h2q_u32(efgh, before, sum);
    }
    vst1q_u32(state, vaddq_u32(abcd, abcd_before));
    vst1q_u32(state + 4, vaddq_u32(efgh, efgh_before));
}
#endif

class Sha256 {
  public:
    void update(const void *data, size_t size) {
        auto next = static_cast<const uint8_t *>(data);
        total_ += size;
        while (size) {
            if (!filled_ && size >= sizeof block_) {
                compress(next);
                next += sizeof block_, size -= sizeof block_;
                continue;
            }
            size_t part = std::min(size, sizeof block_ - filled_);
            std::memcpy(block_ + filled_, next, part);
            next += part, size -= part, filled_ += part;
            if (filled_ == sizeof block_) compress(block_), filled_ = 0;
        }
    }

    std::string hex() {
        uint64_t bits = total_ * 8;
        uint8_t padding[72] = {0x80};
        size_t zeros = (filled_ < 56 ? 56 : 120) - filled_;
        for (int i = 0; i < 8; ++i) padding[zeros + i] = static_cast<uint8_t>(bits >> (56 - 8 * i));
        update(padding, zeros + 8);
        std::string digits;
        for (uint32_t word : state_)
            for (int shift = 28; shift >= 0; shift -= 4)
                digits += "0123456789abcdef"[word >> shift & 15];
        return digits;
    }

  private:
    static uint32_t turn(uint32_t x, int by) { return x >> by | x << (32 - by); }

    void compress(const uint8_t *block) {
#ifdef EDGETL_SHA_INSTRUCTIONS
        static const bool fast = has_sha_instructions();
        if (fast) return compress_fast(state_.data(), block);
#endif
        uint32_t w[64];
        for (int i = 0; i < 16; ++i)
            w[i] = uint32_t{block[4 * i]} << 24 | uint32_t{block[4 * i + 1]} << 16 |
                   uint32_t{block[4 * i + 2]} << 8 | block[4 * i + 3];
        for (int i = 16; i < 64; ++i) {
            uint32_t a = w[i - 15], b = w[i - 2];
            w[i] = w[i - 16] + (turn(a, 7) ^ turn(a, 18) ^ a >> 3) + w[i - 7] +
                   (turn(b, 17) ^ turn(b, 19) ^ b >> 10);
        }
        auto [a, b, c, d, e, f, g, h] = state_;
        for (int i = 0; i < 64; ++i) {
            uint32_t t1 = h + (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) + ((e & f) ^ (~e & g)) +
                          kSha256[i] + w[i];
            uint32_t t2 = (turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
            h = g, g = f, f = e, e = d + t1, d = c, c = b, b = a, a = t1 + t2;
        }
        uint32_t sums[8] = {a, b, c, d, e, f, g, h};
        for (int i = 0; i < 8; ++i) state_[i] += sums[i];
    }

    std::array<uint32_t, 8> state_ = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                      0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    uint8_t block_[64];
    size_t filled_ = 0;
    uint64_t total_ = 0;
};

std::string sha256(const void *data, size_t size) {
    Sha256 hash;
    hash.update(data, size);
    return hash.hex();
}

// ---- JSON ----

struct Json {
    enum Kind { Null, Bool, Number, String, Array, Object } kind = Null;
    double number = 0;  // of a Bool: 0 or 1
    std::string text;
    std::vector<std::string> keys;  // of an Object, in the order of `items`
    std::vector<Json> items;

    const Json *find(Bytes key) const {
        for (size_t i = 0; i < keys.size(); ++i)
            if (keys[i] == key) return &items[i];
        return nullptr;
    }
    const Json &at(Bytes key, Kind expected) const {
        const Json *value = find(key);
        if (!value || value->kind != expected)
            bad_model("it is incomplete: " + std::string(key) + " is missing or of another type");
        return *value;
    }
    const std::string &string(Bytes key) const { return at(key, String).text; }
    bool operator==(const Json &other) const {
        return kind == other.kind && number == other.number && text == other.text &&
               keys == other.keys && items == other.items;
    }
};

class JsonReader {
  public:
    static Json read(Bytes text) {
        JsonReader reader(text);
        Json value = reader.value(0);
        reader.space();
        if (reader.at_ != text.size()) reader.fail();
        return value;
    }

  private:
    explicit JsonReader(Bytes text) : text_(text) {}

    [[noreturn]] void fail() const {
        bad_model("it is damaged: not valid JSON at byte " + std::to_string(at_));
    }
    char next() {
        if (at_ >= text_.size()) fail();
        return text_[at_++];
    }
    void space() {
        while (at_ < text_.size() && std::strchr(" \t\r\n", text_[at_]) && text_[at_]) ++at_;
    }
    bool skip(Bytes word) {
        if (text_.substr(at_, word.size()) != word) return false;
        at_ += word.size();
        return true;
    }

    Json value(int depth) {
        if (depth > 64) fail();  // deeper than any model card; the stack is finite
        space();
        Json result;
        if (skip("{")) {
            result.kind = Json::Object;
            members('}', [&] {
                space();
                if (next() != '"') fail();
                result.keys.push_back(string());
                space();
                if (next() != ':') fail();
                result.items.push_back(value(depth + 1));
            });
        } else if (skip("[")) {
            result.kind = Json::Array;
            members(']', [&] { result.items.push_back(value(depth + 1)); });
        } else if (skip("\"")) {
            result.kind = Json::String;
            result.text = string();
        } else if (skip("true")) {
            result.kind = Json::Bool;
            result.number = 1;
        } else if (skip("false")) {
            result.kind = Json::Bool;
        } else if (!skip("null")) {
            result.kind = Json::Number;
            const char *start = text_.data() + at_, *end = text_.data() + text_.size();
            auto [stop, problem] = std::from_chars(start, end, result.number);
            if (problem != std::errc() || !std::isfinite(result.number)) fail();
            at_ += static_cast<size_t>(stop - start);
        }
        return result;
    }

    void members(char end, const std::function<void()> &member) {
        space();
        if (at_ < text_.size() && text_[at_] == end) {
            ++at_;
            return;
        }
        for (;;) {
            member();
            space();
            char after = next();
            if (after == end) return;
            if (after != ',') fail();
        }
    }

    uint32_t hex4() {
        uint32_t code = 0;
        if (at_ + 4 > text_.size()) fail();
        auto [stop, problem] =
            std::from_chars(text_.data() + at_, text_.data() + at_ + 4, code, 16);
        if (problem != std::errc() || stop != text_.data() + at_ + 4) fail();
        at_ += 4;
        return code;
    }

    std::string string() {
        std::string result;
        for (char c = next(); c != '"'; c = next()) {
            if (c != '\\') {
                result += c;
                continue;
            }
            static constexpr Bytes names = "\"\\/bfnrt", meant = "\"\\/\b\f\n\r\t";
            char escape = next();
            if (escape == 'u')
                character(result);
            else if (size_t found = names.find(escape); found != Bytes::npos)
                result += meant[found];
            else
                fail();
        }
        return result;
    }

    void character(std::string &result) {
        uint32_t code = hex4();
        if (code >= 0xD800 && code < 0xDC00) {
            if (!skip("\\u")) fail();
            uint32_t low = hex4();
            if (low < 0xDC00 || low > 0xDFFF) fail();
            code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
        }
        if (!code) fail();  // labels and names are given out as C strings
        if (code >= 0xDC80 && code <= 0xDCFF) {
            result += static_cast<char>(code - 0xDC00);  // a byte of a name that is not Unicode
        } else if (code < 0x80) {
            result += static_cast<char>(code);
        } else {
            int more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
            static constexpr int heads[] = {0, 0xC0, 0xE0, 0xF0};
            result += static_cast<char>(heads[more] | code >> (6 * more));
            while (more--) result += static_cast<char>(0x80 | (code >> (6 * more) & 0x3F));
        }
    }

    Bytes text_;
    size_t at_ = 0;
};

// ---- EXIF: the orientation, as Pillow reads it ----

uint32_t integer(Bytes data, size_t at, int size, bool big_endian) {
    uint32_t value = 0;
    for (int i = 0; i < size; ++i) {
        auto byte = static_cast<uint8_t>(data[at + (big_endian ? i : size - 1 - i)]);
        value = value << 8 | byte;
    }
    return value;
}

constexpr Bytes kExifPrefix("Exif\0\0", 6);

bool starts_with(Bytes data, Bytes prefix) { return data.substr(0, prefix.size()) == prefix; }

// The orientation in a TIFF structure. -1: it is not one; 0: it has none.
int exif_orientation(Bytes data) {
    for (int i = 0; i < 2 && starts_with(data, kExifPrefix); ++i) data.remove_prefix(6);
    if (data.empty()) return 0;
    Bytes magic = data.substr(0, 4);
    bool big = starts_with(data, "MM");
    if (data.size() < 8 || (magic != Bytes("MM\0*", 4) && magic != Bytes("II*\0", 4) &&
                            magic != Bytes("MM*\0", 4) && magic != Bytes("II\0*", 4)))
        return -1;
    uint64_t at = integer(data, 4, 4, big), needed = 0;
    if (at + 2 > data.size()) return 0;
    uint32_t count = integer(data, at, 2, big);
    static constexpr int sizes[] = {0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8};
    for (at += 2; count-- && at + 12 <= data.size(); at += 12) {
        uint32_t tag = integer(data, at, 2, big), type = integer(data, at + 2, 2, big);
        int unit = type < std::size(sizes) ? sizes[type] : 0;
        uint64_t size = uint64_t{integer(data, at + 4, 4, big)} * unit;
        if (!size) continue;
        uint64_t value = at + 8;
        if (size > 4) {
            needed += size;
            if (needed > data.size()) continue;
            value = integer(data, at + 8, 4, big);
            if (value + size > data.size()) return 0;  // Pillow stops reading here
        }
        if (tag != 0x0112) continue;
        bool whole = type == 3 || type == 4 || type == 6 || type == 8 || type == 9 || type == 13;
        uint32_t turn = whole && size == static_cast<uint64_t>(unit)
                            ? integer(data, value, unit, big) : 1;
        return turn >= 1 && turn <= 8 ? static_cast<int>(turn) : 1;
    }
    return 0;
}

int xmp_orientation(Bytes xmp) {
    constexpr Bytes name = "tiff:Orientation";
    for (size_t at = xmp.find(name); at != Bytes::npos; at = xmp.find(name, at + 1)) {
        Bytes rest = xmp.substr(at + name.size());
        size_t skipped = starts_with(rest, "=\"") ? 2 : starts_with(rest, ">") ? 1 : 0;
        if (skipped && rest.size() > skipped && rest[skipped] >= '0' && rest[skipped] <= '9')
            return rest[skipped] - '0';
    }
    return 0;
}

int orientation(Bytes exif, Bytes xmp) {
    int turn = exif_orientation(exif);
    return turn ? turn : xmp_orientation(xmp);
}

// ---- Pictures ----

struct Free {
    void operator()(void *memory) const { std::free(memory); }
};

struct Picture {
    int32_t width = 0, height = 0;
    std::unique_ptr<uint8_t, Free> rgb;  // given away by edgetl_decode, without a copy
    int turn = 0;  // EXIF orientation

    void allocate(uint64_t w, uint64_t h, uint64_t max_pixels) {
        if (w * h > max_pixels)
            bad_photo("it has " + std::to_string(w) + "×" + std::to_string(h) + " = " +
                      std::to_string(w * h) + " pixels; the limit is " +
                      std::to_string(max_pixels));
        width = static_cast<int32_t>(w), height = static_cast<int32_t>(h);
        rgb.reset(static_cast<uint8_t *>(std::malloc(size())));
        if (!rgb) throw std::bad_alloc();
    }
    size_t size() const { return static_cast<size_t>(width) * static_cast<size_t>(height) * 3; }
    uint8_t *row(size_t y) { return rgb.get() + y * 3 * static_cast<size_t>(width); }
};

uint8_t divided_by_255(uint32_t value) {  // rounded to nearest
    value += 128;
    return static_cast<uint8_t>(((value >> 8) + value) >> 8);
}

// ---- JPEG ----

// libjpeg reports an error by calling error_exit, which may not return. It jumps back into
// jpeg_header or jpeg_rows, which therefore have no objects with destructors.
struct Jpeg {
    jpeg_decompress_struct info{};
    jpeg_error_mgr errors{};
    jpeg_source_mgr source{};
    jmp_buf failed;
    char message[JMSG_LENGTH_MAX] = "it is cut short";

    ~Jpeg() { jpeg_destroy_decompress(&info); }
};

void jpeg_failed(j_common_ptr info) {
    auto jpeg = static_cast<Jpeg *>(info->client_data);
    info->err->format_message(info, jpeg->message);
    longjmp(jpeg->failed, 1);
}

void jpeg_skip(j_decompress_ptr info, long count) {
    if (count <= 0) return;
    size_t skipped = std::min(static_cast<size_t>(count), info->src->bytes_in_buffer);
    info->src->next_input_byte += skipped;
    info->src->bytes_in_buffer -= skipped;
}

bool jpeg_header(Jpeg &jpeg, const uint8_t *bytes, size_t size) {
    jpeg.info.err = jpeg_std_error(&jpeg.errors);
    jpeg.errors.error_exit = jpeg_failed;
    jpeg.errors.emit_message = [](j_common_ptr, int) {};
    jpeg.info.client_data = &jpeg;
    if (setjmp(jpeg.failed)) return false;
    jpeg_create_decompress(&jpeg.info);
    jpeg.source.next_input_byte = bytes;
    jpeg.source.bytes_in_buffer = size;
    jpeg.source.init_source = jpeg.source.term_source = [](j_decompress_ptr) {};
    // There is no more: libjpeg then suspends, while its own sources would go on with gray.
    jpeg.source.fill_input_buffer = [](j_decompress_ptr) -> boolean { return FALSE; };
    jpeg.source.skip_input_data = jpeg_skip;
    jpeg.source.resync_to_restart = jpeg_resync_to_restart;
    jpeg.info.src = &jpeg.source;
    jpeg_save_markers(&jpeg.info, JPEG_APP0 + 1, 0xFFFF);   // EXIF, XMP
    jpeg_save_markers(&jpeg.info, JPEG_APP0 + 14, 0xFFFF);  // Adobe
    return jpeg_read_header(&jpeg.info, TRUE) == JPEG_HEADER_OK;
}

// CMYK as Pillow converts it, of ink values 0..255.
void cmyk_to_rgb(const uint8_t *cmyk, uint8_t *rgb, size_t width, bool inverted) {
    for (size_t x = 0; x < width; ++x, cmyk += 4, rgb += 3) {
        uint8_t flip = inverted ? 255 : 0;
        uint32_t white = 255 - static_cast<uint32_t>(cmyk[3] ^ flip);
        for (int c = 0; c < 3; ++c)
            rgb[c] = static_cast<uint8_t>(white - divided_by_255((cmyk[c] ^ flip) * white));
    }
}

bool jpeg_rows(Jpeg &jpeg, Picture &picture, uint8_t *cmyk, bool inverted) {
    if (setjmp(jpeg.failed)) return false;
    jpeg.info.out_color_space = cmyk ? JCS_CMYK : JCS_RGB;
    if (!jpeg_start_decompress(&jpeg.info)) return false;
    while (jpeg.info.output_scanline < jpeg.info.output_height) {
        uint8_t *rgb = picture.row(jpeg.info.output_scanline), *row = cmyk ? cmyk : rgb;
        if (jpeg_read_scanlines(&jpeg.info, &row, 1) != 1) return false;
        if (cmyk) cmyk_to_rgb(cmyk, rgb, jpeg.info.output_width, inverted);
    }
    jpeg_finish_decompress(&jpeg.info);  // the end marker may be missing, the pixels are whole
    return true;
}

Picture decode_jpeg(Bytes bytes, uint64_t max_pixels) {
    Jpeg jpeg;
    Picture picture;
    if (!jpeg_header(jpeg, reinterpret_cast<const uint8_t *>(bytes.data()), bytes.size()))
        bad_photo(std::string("it is damaged (") + jpeg.message + ")");
    int channels = jpeg.info.num_components;
    if (channels != 1 && channels != 3 && channels != 4)
        bad_photo("it has " + std::to_string(channels) + " channels");
    std::string exif;
    Bytes xmp;
    bool adobe = false;
    for (auto marker = jpeg.info.marker_list; marker; marker = marker->next) {
        Bytes data(reinterpret_cast<const char *>(marker->data), marker->data_length);
        constexpr Bytes xmp_prefix("http://ns.adobe.com/xap/1.0/\0", 29);
        if (marker->marker == JPEG_APP0 + 14)
            adobe = adobe || starts_with(data, "Adobe");
        else if (starts_with(data, kExifPrefix))
            exif += exif.empty() ? data : data.substr(6);
        else if (starts_with(data, xmp_prefix))
            xmp = data.substr(xmp_prefix.size());
    }
    picture.turn = orientation(exif, xmp);
    picture.allocate(jpeg.info.image_width, jpeg.info.image_height, max_pixels);
    Pixels cmyk(channels == 4 ? 4 * size_t{jpeg.info.image_width} : 0);
    if (!jpeg_rows(jpeg, picture, channels == 4 ? cmyk.data() : nullptr, adobe))
        bad_photo(std::string("it is damaged (") + jpeg.message + ")");
    return picture;
}

// ---- PNG ----

struct Png {
    png_structp png = nullptr;
    png_infop info = nullptr;
    Bytes rest;
    char message[128] = "it is damaged";

    png_uint_32 width = 0, height = 0;
    int depth = 0, type = 0, passes = 1;
    png_color_16p clear = nullptr;  // the transparent colour
    uint8_t palette[256][4] = {};   // RGBA; an entry that is missing is black, as in Pillow

    ~Png() { png_destroy_read_struct(&png, &info, nullptr); }
};

void png_failed(png_structp png, png_const_charp reason) {
    auto file = static_cast<Png *>(png_get_error_ptr(png));
    std::snprintf(file->message, sizeof file->message, "it is damaged (%s)", reason);
    png_longjmp(png, 1);
}

void png_more(png_structp png, png_bytep target, size_t size) {
    auto file = static_cast<Png *>(png_get_io_ptr(png));
    if (file->rest.size() < size) png_error(png, "it is cut short");
    std::memcpy(target, file->rest.data(), size);
    file->rest.remove_prefix(size);
}

bool png_header(Png &file) {
    file.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &file, png_failed,
                                      [](png_structp, png_const_charp) {});
    file.info = file.png ? png_create_info_struct(file.png) : nullptr;
    if (!file.info || setjmp(png_jmpbuf(file.png))) return false;
    png_set_read_fn(file.png, &file, png_more);
    png_set_user_limits(file.png, PNG_UINT_31_MAX, PNG_UINT_31_MAX);  // max_pixels is the limit
    png_set_crc_action(file.png, PNG_CRC_ERROR_QUIT, PNG_CRC_ERROR_QUIT);
    // Only transparency changes pixels; a profile or a text could be a decompression bomb.
    png_set_keep_unknown_chunks(file.png, PNG_HANDLE_CHUNK_NEVER, nullptr, -1);
    png_read_info(file.png, file.info);
    png_get_IHDR(file.png, file.info, &file.width, &file.height, &file.depth, &file.type, nullptr,
                 nullptr, nullptr);
    png_get_tRNS(file.png, file.info, nullptr, nullptr, &file.clear);
    if (!png_get_valid(file.png, file.info, PNG_INFO_tRNS)) file.clear = nullptr;
    png_colorp colours;
    int count = 0;
    if (png_get_PLTE(file.png, file.info, &colours, &count))
        for (int i = 0; i < count; ++i)
            file.palette[i][0] = colours[i].red, file.palette[i][1] = colours[i].green,
            file.palette[i][2] = colours[i].blue;
    file.passes = png_set_interlace_handling(file.png);
    png_start_read_image(file.png);
    return true;
}

// One row of the file's samples → RGB, composited on white.
void png_row_to_rgb(const Png &file, const uint8_t *raw, uint8_t *rgb) {
    const int depth = file.depth, bytes = depth == 16 ? 2 : 1;
    const int maximum = (1 << std::min(depth, 8)) - 1;
    const int channels = png_get_channels(file.png, file.info);
    const bool colour = file.type & PNG_COLOR_MASK_COLOR;
    auto sample = [&](size_t i) -> int {  // the high byte of 16 bits
        if (depth >= 8) return raw[i * bytes];
        size_t bit = i * depth;
        return raw[bit / 8] >> (8 - depth - bit % 8) & maximum;
    };
    // As Pillow compares the transparent colour: by its low byte, unscaled, unless gray of 16 bits.
    auto is_clear = [&](size_t x, const uint8_t *value) {
        if (!file.clear) return false;
        if (colour)
            return value[0] == (file.clear->red & 255) && value[1] == (file.clear->green & 255) &&
                   value[2] == (file.clear->blue & 255);
        if (depth == 16) return (raw[2 * x] << 8 | raw[2 * x + 1]) == file.clear->gray;
        int gray = depth == 1 ? (file.clear->gray ? 255 : 0) : file.clear->gray & 255;
        return value[0] == gray;
    };
    for (size_t x = 0; x < file.width; ++x, rgb += 3) {
        uint8_t value[4];
        if (file.type == PNG_COLOR_TYPE_PALETTE) {
            std::memcpy(value, file.palette[sample(x)], 4);
        } else {
            for (int c = 0; c < 3; ++c)
                value[c] = static_cast<uint8_t>(sample(x * channels + (colour ? c : 0)) * 255 /
                                                maximum);
            value[3] = file.type & PNG_COLOR_MASK_ALPHA
                           ? static_cast<uint8_t>(sample(x * channels + channels - 1))
                           : is_clear(x, value) ? 0 : 255;
        }
        for (int c = 0; c < 3; ++c)
            rgb[c] = divided_by_255(255u * (255 - value[3]) + value[c] * value[3]);
    }
}

// `raw` holds one row, or the whole interlaced image.
bool png_rows(Png &file, Picture &picture, uint8_t *raw, size_t stride) {
    if (setjmp(png_jmpbuf(file.png))) return false;
    for (int pass = 0; pass < file.passes; ++pass)
        for (size_t y = 0; y < file.height; ++y) {
            uint8_t *row = raw + (file.passes > 1 ? y * stride : 0);
            png_read_row(file.png, row, nullptr);
            if (pass == file.passes - 1) png_row_to_rgb(file, row, picture.row(y));
        }
    png_read_end(file.png, nullptr);  // verifies the checksum of the pixels
    return true;
}

// At most a mebibyte, as much as Pillow takes; "" if it is longer or damaged.
std::string inflated(Bytes data) {
    std::string result(1 << 20, 0);
    uLongf size = result.size();
    if (uncompress(reinterpret_cast<Bytef *>(result.data()), &size,
                   reinterpret_cast<const Bytef *>(data.data()), data.size()) != Z_OK)
        size = 0;
    result.resize(size);
    return result;
}

// EXIF as ImageMagick keeps it in a text: three lines, then hexadecimal digits.
std::string raw_profile(Bytes text) {
    std::string result;
    for (int line = 0; line < 3; ++line)
        text.remove_prefix(std::min(text.size(), text.find('\n') + 1));
    int digits = 0, value = 0;
    for (char c : text) {
        size_t digit = Bytes("0123456789abcdef").find(static_cast<char>(c | 0x20));
        if (digit == Bytes::npos) continue;
        value = value << 4 | static_cast<int>(digit);
        if (++digits % 2 == 0) result += static_cast<char>(value), value = 0;
    }
    return result;
}

// Calls `each` with the type and the data of every chunk.
void png_chunks(Bytes bytes, const std::function<void(Bytes, Bytes)> &each) {
    for (size_t at = 8; at + 12 <= bytes.size();) {
        uint64_t size = integer(bytes, at, 4, true);
        each(bytes.substr(at + 4, 4), bytes.substr(at + 8, size));
        at += 12 + size;
    }
}

int png_orientation(Bytes bytes) {
    std::string exif, profile, xmp;
    bool has_exif = false;
    png_chunks(bytes, [&](Bytes type, Bytes data) {
        if (type == "eXIf") {
            exif = data;
            has_exif = true;
        } else if (type == "zTXt" || type == "tEXt") {
            constexpr Bytes key("Raw profile type exif\0", 22);
            if (starts_with(data, key)) {
                Bytes text = data.substr(key.size());
                profile = raw_profile(type == "tEXt" ? std::string(text)
                                                     : inflated(text.substr(text.empty() ? 0 : 1)));
            }
        } else if (type == "iTXt") {
            constexpr Bytes key("XML:com.adobe.xmp\0", 18);
            if (starts_with(data, key) && data.size() > key.size() + 2) {
                bool compressed = data[key.size()];
                Bytes text = data.substr(key.size() + 2);  // after language and translated key
                for (int part = 0; part < 2; ++part)
                    text.remove_prefix(std::min(text.size(), text.find('\0') + 1));
                xmp = compressed ? inflated(text) : std::string(text);
            }
        }
    });
    return orientation(has_exif ? exif : profile, xmp);
}

Picture decode_png(Bytes bytes, uint64_t max_pixels) {
    Png file;
    Picture picture;
    file.rest = bytes;
    if (!png_header(file)) bad_photo(file.message);
    picture.allocate(file.width, file.height, max_pixels);
    picture.turn = png_orientation(bytes);
    for (auto &entry : file.palette) entry[3] = 255;
    png_chunks(bytes, [&](Bytes type, Bytes data) {  // libpng drops it if it is too long
        for (size_t i = 0; type == "tRNS" && i < std::min<size_t>(data.size(), 256); ++i)
            file.palette[i][3] = static_cast<uint8_t>(data[i]);
    });
    size_t stride = png_get_rowbytes(file.png, file.info);
    Pixels raw(file.passes > 1 ? stride * file.height : stride);
    if (!png_rows(file, picture, raw.data(), stride)) bad_photo(file.message);
    return picture;
}

// ---- Decoding ----

Picture upright(Picture picture) {
    if (picture.turn < 2 || picture.turn > 8) return picture;
    const ptrdiff_t w = picture.width, h = picture.height;
    const bool swapped = picture.turn >= 5;
    // Where the first pixel of the result lies in the source, and the steps to the right and down.
    const bool from_right = picture.turn == 2 || picture.turn == 3 || picture.turn >= 7;
    const bool from_bottom = picture.turn == 3 || picture.turn == 4 || picture.turn == 6 ||
                             picture.turn == 7;
    const ptrdiff_t across = from_right ? -1 : 1, down = from_bottom ? -w : w;
    const ptrdiff_t step_x = swapped ? down : across, step_y = swapped ? across : down;
    const ptrdiff_t start = (from_right ? w - 1 : 0) + (from_bottom ? (h - 1) * w : 0);
    Picture turned;
    turned.allocate(swapped ? h : w, swapped ? w : h, w * h);
    uint8_t *out = turned.rgb.get();
    for (ptrdiff_t y = 0; y < turned.height; ++y)
        for (ptrdiff_t x = 0; x < turned.width; ++x, out += 3)
            std::memcpy(out, picture.rgb.get() + 3 * (start + y * step_y + x * step_x), 3);
    return turned;
}

const char *other_format(Bytes bytes) {
    Bytes brand = bytes.substr(0, 12);
    if (brand.size() == 12 && brand.substr(4, 4) == "ftyp") {
        brand.remove_prefix(8);
        if (brand == "avif" || brand == "avis") return "AVIF";
        for (Bytes heif : {"heic", "heix", "hevc", "hevx", "heim", "heis", "mif1", "msf1"})
            if (brand == heif) return "HEIC";
    }
    if (starts_with(bytes, "RIFF") && bytes.substr(8, 4) == "WEBP") return "WebP";
    static constexpr std::pair<Bytes, const char *> magics[] = {
        {"GIF8", "GIF"}, {"BM", "BMP"}, {{"II*\0", 4}, "TIFF"}, {{"MM\0*", 4}, "TIFF"},
        {{"\0\0\0\x0CjP  ", 8}, "JPEG 2000"}, {"\xFF\x4F\xFF\x51", "JPEG 2000"},
        {{"\0\0\1\0", 4}, "ICO"}, {"\xFF\x0A", "JPEG XL"}, {{"\0\0\0\x0CJXL ", 8}, "JPEG XL"}};
    for (auto &[magic, name] : magics)
        if (starts_with(bytes, magic)) return name;
    return nullptr;
}

Picture decode(Bytes bytes, uint64_t max_pixels) {
    if (bytes.empty()) bad_photo("it is empty (0 bytes)");
    if (starts_with(bytes, "\xFF\xD8\xFF")) return upright(decode_jpeg(bytes, max_pixels));
    if (starts_with(bytes, "\x89PNG\r\n\x1A\n")) return upright(decode_png(bytes, max_pixels));
    if (const char *name = other_format(bytes))
        bad_photo(std::string("it is ") + name +
                  ", which is not decoded here. Convert it to JPEG or PNG.");
    bad_photo("it is not an image, or of a format that is not read here. Convert it to JPEG or "
              "PNG if it is one.");
}

// ---- The preprocessing contract, version 1: the resize ----

struct Size {
    int64_t height = 0, width = 0;
    bool operator==(const Size &other) const {
        return height == other.height && width == other.width;
    }
};

int64_t length(const Json &value) {
    bool valid = value.kind == Json::Number && value.number >= 1 && value.number <= 65536;
    if (!valid || value.number != std::floor(value.number))
        bad_model("its preprocessing has a size that is not a whole number from 1 to 65536");
    return static_cast<int64_t>(value.number);
}

Size pair(const Json &value) {
    if (value.kind != Json::Array || value.items.size() != 2)
        bad_model("its preprocessing has a size that is not a pair");
    return {length(value.items[0]), length(value.items[1])};
}

struct Spec {
    bool squash = false, bicubic = false, has_crop = false;
    Size size, crop;  // shorter_side: `size` holds the same number twice

    explicit Spec(const Json &json) {
        if (double version = json.at("version", Json::Number).number; version != 1)
            bad_model("preprocessing version " + std::to_string(static_cast<int>(version)) +
                      " is not known here: this program reads 1");
        auto &resize = json.string("resize"), &interpolation = json.string("interpolation");
        squash = resize == "squash", bicubic = interpolation == "bicubic";
        if ((!squash && resize != "shorter_side") || (!bicubic && interpolation != "bilinear"))
            bad_model("its preprocessing is not known here");
        const Json *wanted = json.find("size"), *window = json.find("crop");
        if (!wanted || !window) bad_model("its preprocessing is incomplete");
        size = squash ? pair(*wanted) : Size{length(*wanted), length(*wanted)};
        has_crop = window->kind != Json::Null;
        if (has_crop) crop = pair(*window);
        if (has_crop && (crop.height > size.height || crop.width > size.width))
            bad_model("its preprocessing has a crop that is larger than the photo");
    }

    Size resized(int64_t height, int64_t width) const {
        if (squash) return size;
        auto longer = [&](int64_t longest, int64_t shortest) {
            return static_cast<int64_t>(static_cast<double>(size.width * longest) /
                                        static_cast<double>(shortest));
        };
        return height <= width ? Size{size.height, longer(width, height)}
                               : Size{longer(height, width), size.width};
    }
    Size crop_origin(Size from) const {  // (top, left)
        if (!has_crop) return {};
        auto half = [](int64_t rest) {  // half to even
            return rest / 2 + (rest % 2 ? rest / 2 % 2 : 0);
        };
        return {half(from.height - crop.height), half(from.width - crop.width)};
    }
    Size output(Size resized) const { return has_crop ? crop : resized; }
};

struct Taps {
    int64_t first;
    std::vector<int32_t> weights;  // 22 fractional bits
};

double weight(double x, bool bicubic) {
    x = std::abs(x);
    if (!bicubic) return x < 1 ? 1 - x : 0;
    if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
    return x < 2 ? (((x - 5) * x + 8) * x - 4) * -0.5 : 0;
}

// For the outputs `start` to `start + count` of an axis of `from` pixels that is resized to `to`.
std::vector<Taps> axis_taps(int64_t from, int64_t to, int64_t start, int64_t count, bool bicubic) {
    const double scale = static_cast<double>(from) / static_cast<double>(to);
    const double filter_scale = std::max(scale, 1.0), support = (bicubic ? 2 : 1) * filter_scale;
    std::vector<Taps> result;
    std::vector<double> exact;
    for (int64_t i = start; i < start + count; ++i) {
        if (from == to) {  // left out
            result.push_back({i, {1 << 22}});
            continue;
        }
        double centre = (static_cast<double>(i) + 0.5) * scale, total = 0;
        Taps taps{std::max<int64_t>(static_cast<int64_t>(centre - support + 0.5), 0), {}};
        int64_t end = std::min(static_cast<int64_t>(centre + support + 0.5), from);
        exact.clear();
        for (int64_t x = taps.first; x < end; ++x) {
            exact.push_back(weight((static_cast<double>(x) - centre + 0.5) * (1 / filter_scale),
                                   bicubic));
            total += exact.back();
        }
        for (double value : exact) {
            double scaled = value / total * (1 << 22);
            taps.weights.push_back(static_cast<int32_t>(scaled + (scaled < 0 ? -0.5 : 0.5)));
        }
        result.push_back(std::move(taps));
    }
    return result;
}

uint8_t clipped(int32_t sum) { return static_cast<uint8_t>(std::clamp(sum >> 22, 0, 255)); }

// The part of the resized image at `origin` with `size`: horizontal pass first, then vertical.
Pixels resize_window(const edgetl_image &image, const Spec &spec, Size origin, Size size) {
    const Size full = spec.resized(image.height, image.width);
    const auto largest = static_cast<uint64_t>(full.width) *
                         static_cast<uint64_t>(std::max<int64_t>(image.height, full.height));
    if (largest > kMaxPixels)
        bad_photo("resizing " + std::to_string(image.width) + "×" + std::to_string(image.height) +
                  " takes " + std::to_string(largest) + " pixels; the limit is " +
                  std::to_string(kMaxPixels));
    auto columns = axis_taps(image.width, full.width, origin.width, size.width, spec.bicubic);
    auto rows = axis_taps(image.height, full.height, origin.height, size.height, spec.bicubic);
    const int64_t top = rows.front().first;
    const int64_t bottom = rows.back().first + static_cast<int64_t>(rows.back().weights.size());
    const size_t stride = static_cast<size_t>(size.width) * 3;
    Pixels narrow(static_cast<size_t>(bottom - top) * stride);
    uint8_t *out = narrow.data();
    for (int64_t y = top; y < bottom; ++y) {
        const uint8_t *row = image.pixels + y * image.width * 3;
        for (const Taps &taps : columns) {
            int32_t sum[3] = {1 << 21, 1 << 21, 1 << 21};
            const uint8_t *in = row + taps.first * 3;
            for (int32_t by : taps.weights)
                for (int c = 0; c < 3; ++c) sum[c] += *in++ * by;
            for (int c = 0; c < 3; ++c) *out++ = clipped(sum[c]);
        }
    }
    Pixels result;
    result.reserve(rows.size() * stride);
    std::vector<int32_t> sums(stride);
    for (const Taps &taps : rows) {
        std::fill(sums.begin(), sums.end(), 1 << 21);
        const uint8_t *in = narrow.data() + static_cast<size_t>(taps.first - top) * stride;
        for (int32_t by : taps.weights)
            for (size_t x = 0; x < stride; ++x) sums[x] += *in++ * by;
        for (int32_t sum : sums) result.push_back(clipped(sum));
    }
    return result;
}

Pixels resize(const edgetl_image &image, const Spec &spec) {
    Size resized = spec.resized(image.height, image.width);
    return resize_window(image, spec, spec.crop_origin(resized), spec.output(resized));
}

// For the whole graph, which leaves out its own resize of what has the resized size, and crops.
Pixels resize_for_graph(const edgetl_image &image, const Spec &spec, Size &size) {
    size = spec.resized(image.height, image.width);
    if (!spec.has_crop || spec.squash) return resize_window(image, spec, {}, size);
    Size origin = spec.crop_origin(size), in_square = spec.crop_origin(spec.size);
    size = spec.size;
    return resize_window(
        image, spec, {origin.height - in_square.height, origin.width - in_square.width}, size);
}

// ---- The bundle: manifest.json and the files that it names ----

using File = std::unique_ptr<FILE, int (*)(FILE *)>;

File open_file(const fs::path &path) {
    std::error_code failed;
    auto status = fs::symlink_status(path, failed);
    if (!fs::exists(status)) bad_model(path.string() + ": it is missing");
    if (!fs::is_regular_file(status)) bad_model(path.string() + ": it is not a regular file");
    File file(std::fopen(path.c_str(), "rb"), std::fclose);
    if (!file) bad_model(path.string() + ": it can't be read (" + std::strerror(errno) + ")");
    return file;
}

std::string read_file(const fs::path &path) {
    File file = open_file(path);
    std::string content;
    char part[1 << 16];
    while (size_t size = std::fread(part, 1, sizeof part, file.get())) content.append(part, size);
    if (std::ferror(file.get())) bad_model(path.string() + ": it can't be read");
    return content;
}

struct FileHash {
    uint64_t size = 0;
    std::string sha256, front_sha256, tail;  // `tail` is the last 64 bytes, `front` all before

    explicit FileHash(const fs::path &path) {
        File file = open_file(path);
        Sha256 hash;
        char part[1 << 16];
        while (size_t count = std::fread(part, 1, sizeof part, file.get())) {
            size += count;
            tail.append(part, count);
            size_t done = tail.size() - std::min<size_t>(tail.size(), 64);
            hash.update(tail.data(), done);
            tail.erase(0, done);
        }
        if (std::ferror(file.get())) bad_model(path.string() + ": it can't be read");
        front_sha256 = Sha256(hash).hex();
        hash.update(tail.data(), tail.size());
        sha256 = hash.hex();
    }
};

// A model that carries a checksum ends with it, as the last entry of its metadata.
void verify_embedded_sha256(const fs::path &path) {
    FileHash hash(path);
    bool carries = hash.tail.size() == 64 &&
                   hash.tail.find_first_not_of("0123456789abcdef") == std::string::npos;
    if (carries && hash.tail != hash.front_sha256)
        bad_model(path.string() + ": it is damaged: its SHA-256 is not the one that it carries");
}

void check_schema(const std::string &path, const Json &json) {
    const Json *schema = json.find("schema");
    double number = schema && schema->kind == Json::Number ? schema->number : 0;
    if (number == 1 || number == 2) return;
    const Json *needed = json.find("requires_edgetl");
    std::string newer = needed && needed->kind == Json::String ? needed->text : "a newer version";
    bad_model(path + ": its schema is " + std::to_string(static_cast<int>(number)) +
              "; this program reads 1 and 2. " +
              (number > 2 ? "It needs the files of edgetl " + newer + "." : "Export it again."));
}

// The manifest's checksum is that of its text without the line that holds it.
Json read_manifest(const fs::path &path) {
    std::string text = read_file(path);
    Json manifest = JsonReader::read(text);
    check_schema(path.string(), manifest);
    const std::string line = "\n \"sha256\": \"" + manifest.string("sha256") + "\",";
    if (size_t at = text.find(line); at != std::string::npos) text.erase(at, line.size());
    if (sha256(text.data(), text.size()) != manifest.string("sha256"))
        bad_model(path.string() + ": it was changed after the export");
    return manifest;
}

class Bundle {
  public:
    explicit Bundle(const fs::path &folder)
        : folder_(folder), manifest_(read_manifest(folder / "manifest.json")) {}

    const Json &manifest() const { return manifest_; }
    const Json &files() const { return manifest_.at("files", Json::Object); }

    fs::path path(const std::string &name) const {
        for (const auto &part : fs::path(name))
            if (part == "..") bad_model("a file of it leads outside the folder");
        if (!files().find(name) || name[0] == '/')
            bad_model((folder_ / name).string() + ": manifest.json does not name it");
        return folder_ / name;
    }

    void verify(const std::string &name) const {
        FileHash hash(path(name));
        const Json &expected = files().at(name, Json::Object);
        if (static_cast<double>(hash.size) != expected.at("bytes", Json::Number).number ||
            hash.sha256 != expected.string("sha256"))
            bad_model(path(name).string() +
                      ": it is damaged: its size or SHA-256 is not the manifest's");
    }

    std::string precision(const char *wanted) const {
        const Json &models = manifest_.at("models", Json::Object);
        std::string chosen = wanted ? wanted : models.find("fp32") || models.keys.empty()
                                                   ? "fp32" : models.keys.front();
        if (!models.find(chosen))
            bad_model(folder_.string() + ": it holds no " + chosen + " model");
        return chosen;
    }

  private:
    fs::path folder_;
    Json manifest_;
};

// ---- The model ----

struct Answer {
    std::vector<float> logits, probabilities;
    float ood_score = std::numeric_limits<float>::quiet_NaN();
};

}  // namespace

struct edgetl_model {
    std::unique_ptr<Bundle> bundle;  // none for a lone model
    std::string precision;
    Ort::Env env{ORT_LOGGING_LEVEL_FATAL, "edgetl"};
    mutable Ort::Session session{nullptr};  // its Run is safe to call from several threads
    std::vector<std::string> labels;
    std::unique_ptr<Spec> spec;
    double temperature = 1, unknown_threshold = std::numeric_limits<double>::quiet_NaN();
    bool has_score = false;

    edgetl_model(const std::string &path, const char *wanted, int threads);
    Answer predict(const edgetl_image &image) const;

  private:
    void read_card(const std::string &path);
    void check_outputs(const std::string &path);
};

edgetl_model::edgetl_model(const std::string &path, const char *wanted, int threads) {
    fs::path file = path;
    std::error_code ignored;
    if (!fs::exists(file, ignored)) bad_model(path + ": there is no such bundle or model");
    std::function<void()> verify;
    if (fs::is_directory(file, ignored)) {
        bundle = std::make_unique<Bundle>(file);
        precision = bundle->precision(wanted);
        std::string name = bundle->manifest().at("models", Json::Object).string(precision);
        file = bundle->path(name);
        verify = [this, name] { bundle->verify(name); };
    } else if (wanted) {
        bad_model(path + ": a lone model has one precision only");
    } else {
        file = fs::canonical(file);
        verify = [file] { verify_embedded_sha256(file); };
    }
    auto verified = std::async(std::launch::async, verify);  // while onnxruntime loads it
    Ort::SessionOptions options;
    options.SetLogSeverityLevel(ORT_LOGGING_LEVEL_FATAL);
    options.AddConfigEntry("session.force_spinning_stop", "1");
    options.AddConfigEntry("session.intra_op.allow_spinning", "0");
    options.SetIntraOpNumThreads(threads);
    try {
        session = Ort::Session(env, file.c_str(), options);
    } catch (const Ort::Exception &failure) {
        verified.get();  // damage is the better explanation
        bad_model(path + ": onnxruntime " + Ort::GetVersionString() + " can't load it: " +
                  failure.what());
    }
    verified.get();
    read_card(path);
    check_outputs(path);
}

void edgetl_model::read_card(const std::string &path) {
    Ort::AllocatorWithDefaultOptions allocator;
    auto text = session.GetModelMetadata().LookupCustomMetadataMapAllocated("edgetl", allocator);
    if (!text) bad_model(path + ": it was not exported by edgetl: it has no labels");
    Json metadata = JsonReader::read(text.get());
    check_schema(path, metadata);
    const Json &card = metadata.at("card", Json::Object);
    if (bundle && !(card == bundle->manifest().at("card", Json::Object)))
        bad_model(path + ": the model card in the ONNX file differs from the manifest's. "
                  "Export it again.");
    for (const Json &label : card.at("labels", Json::Array).items) {
        if (label.kind != Json::String) bad_model(path + ": a label is not a string");
        if (std::find(labels.begin(), labels.end(), label.text) != labels.end())
            bad_model(path + ": it has the same label twice");
        labels.push_back(label.text);
    }
    if (labels.empty()) bad_model(path + ": it has no labels");
    temperature = card.at("temperature", Json::Number).number;
    if (!(temperature > 0)) bad_model(path + ": its temperature is not above 0");
    spec = std::make_unique<Spec>(card.at("spec", Json::Object));
    if (const Json *unknown = card.find("unknown"); unknown && unknown->kind == Json::Object)
        unknown_threshold = unknown->at("threshold", Json::Number).number;
}

void edgetl_model::check_outputs(const std::string &path) {
    Ort::AllocatorWithDefaultOptions allocator;
    auto type = [](const Ort::TypeInfo &info) {
        return info.GetTensorTypeAndShapeInfo().GetElementType();
    };
    if (session.GetInputCount() != 1 ||
        session.GetInputNameAllocated(0, allocator).get() != std::string("images") ||
        type(session.GetInputTypeInfo(0)) != ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8)
        bad_model(path + ": its inputs are not those of an export");
    int found = 0;
    for (size_t i = 0; i < session.GetOutputCount(); ++i) {
        std::string name = session.GetOutputNameAllocated(i, allocator).get();
        Ort::TypeInfo info = session.GetOutputTypeInfo(i);
        has_score = has_score || name == "ood_score";
        if (name != "logits" && name != "probabilities") continue;
        auto shape = info.GetTensorTypeAndShapeInfo().GetShape();
        if (type(info) != ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT || shape.size() != 2 ||
            shape[1] != static_cast<int64_t>(labels.size()))
            bad_model(path + ": it has " + std::to_string(labels.size()) + " labels, which is not "
                      "the shape of its " + name);
        ++found;
    }
    if (found != 2) bad_model(path + ": its outputs are not those of an export");
}

Answer edgetl_model::predict(const edgetl_image &image) const {
    Size size;
    Pixels input = resize_for_graph(image, *spec, size);
    const int64_t shape[] = {1, size.height, size.width, 3};
    auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    auto tensor = Ort::Value::CreateTensor<uint8_t>(memory, input.data(), input.size(), shape, 4);
    const char *inputs[] = {"images"}, *outputs[] = {"logits", "probabilities", "ood_score"};
    auto values = session.Run(Ort::RunOptions{}, inputs, &tensor, 1, outputs, has_score ? 3 : 2);
    auto floats = [](const Ort::Value &value, size_t expected) {
        auto info = value.GetTensorTypeAndShapeInfo();
        const float *data = value.GetTensorData<float>();
        if (info.GetElementType() != ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT ||
            info.GetElementCount() != expected)
            throw Failure{EDGETL_RUN_FAILED, "the model's output has another shape than expected"};
        if (!std::all_of(data, data + expected, [](float x) { return std::isfinite(x); }))
            throw Failure{EDGETL_RUN_FAILED, "the model's answers are not finite numbers"};
        return std::vector<float>(data, data + expected);
    };
    Answer answer{floats(values[0], labels.size()), floats(values[1], labels.size())};
    if (has_score) answer.ood_score = floats(values[2], 1)[0];
    return answer;
}

// ---- The self-test ----

namespace {

struct GoldenResult {
    std::string stage, detail;  // stage "": none differs
};

double tolerance(const std::string &precision, bool same_model) {
    if (precision == "fp32") return 1e-4;
    if (precision == "fp16") return 2.5e-2;
    return same_model ? 5e-2 : 0.25;
}

// Whether every CPU gives the logits of the bundle's own answers, to the bit.
bool has_portable_bits(const edgetl_model &model) {
    const Json *found = model.bundle->manifest().find("precisions");
    found = found ? found->find(model.precision) : nullptr;
    found = found ? found->find("portable_bits") : nullptr;
    return found && found->kind == Json::Bool && found->number == 1;
}

// Largest difference, NaN if any value is.
double difference(const std::vector<float> &values, const Json &expected) {
    if (values.size() != expected.items.size())
        bad_model("a golden photo does not have one answer for each label");
    double largest = 0;
    for (size_t i = 0; i < values.size(); ++i) {
        double by = std::abs(static_cast<double>(values[i]) - expected.items[i].number);
        if (!(by <= largest)) largest = by;
    }
    return largest;
}

GoldenResult compare(const Answer &got, const Json &expected, double limit, bool exact,
                     double temperature) {
    const Json &expected_logits = expected.at("logits", Json::Array);
    double logits = difference(got.logits, expected_logits), largest = temperature;
    double probabilities = difference(got.probabilities, expected.at("probabilities", Json::Array));
    for (const Json &value : expected_logits.items)
        largest = std::max(largest, std::abs(value.number));
    char detail[128];
    std::snprintf(detail, sizeof detail, "logits differ by up to %.2g, probabilities by up to %.2g",
                  logits, probabilities);
    // "not <=" rather than ">": NaN fails, too.
    if (!(logits <= (exact ? 0 : 2 * limit * largest))) return {"logits", detail};
    return {probabilities <= limit ? "" : "probabilities", detail};
}

GoldenResult run_golden(const edgetl_model &model, const Json &golden) {
    const std::string &name = golden.string("file");
    std::string stage = "files";
    try {
        model.bundle->verify(name);
        std::string content = read_file(model.bundle->path(name));
        stage = "decode";
        Picture picture = decode(content, kMaxPixels);
        if (sha256(picture.rgb.get(), picture.size()) != golden.string("decoded_sha256"))
            return {stage, "this decoder's pixels are not the reference's"};
        stage = "resized";
        edgetl_image image{picture.rgb.get(), picture.width, picture.height};
        Pixels resized = resize(image, *model.spec);
        if (sha256(resized.data(), resized.size()) != golden.string("resized_sha256"))
            return {stage, "its pixels after the resize are not the reference's"};
        stage = "logits";
        const Json *all_own = golden.find("own_answers");
        const Json *own = all_own ? all_own->find(model.precision) : nullptr;
        bool exact = own && has_portable_bits(model);
        double limit = tolerance(exact ? "fp32" : model.precision, own != nullptr);
        return compare(model.predict(image), own ? *own : golden, limit, exact, model.temperature);
    } catch (const Failure &failure) {
        return {stage, failure.message};
    } catch (const Ort::Exception &failure) {
        return {stage, failure.what()};
    }
}

// The results for damaged files, then for each golden photo; returns whether all agree.
bool run_selftest(const edgetl_model &model,
                  const std::function<void(const std::string &, const GoldenResult &)> &report) {
    bool passed = true;
    if (!model.bundle || model.bundle->manifest().at("golden", Json::Array).items.empty())
        bad_model("it has no golden photos to test with");
    const auto &golden = model.bundle->manifest().at("golden", Json::Array).items;
    for (const std::string &name : model.bundle->files().keys) {
        bool is_golden = std::any_of(golden.begin(), golden.end(), [&](const Json &photo) {
            return photo.string("file") == name;
        });
        if (is_golden) continue;  // verified below, when it is its turn
        try {
            model.bundle->verify(name);
        } catch (const Failure &failure) {
            passed = false;
            report(name, {"files", failure.message});
        }
    }
    for (const Json &photo : golden) {
        GoldenResult result = run_golden(model, photo);
        passed = passed && result.stage.empty();
        report(photo.string("file"), result);
    }
    return passed;
}

void require(bool valid, const char *reason) {
    if (!valid) throw Failure{EDGETL_BAD_ARGUMENT, reason};
}

}  // namespace

// ---- The C interface ----

edgetl_code edgetl_decode(const void *bytes, size_t size, uint64_t max_pixels, edgetl_image *image,
                          edgetl_error *error) {
    if (image) *image = {};
    return guarded(error, [&] {
        require(image && (bytes || !size), "bytes and image may not be NULL");
        Picture picture = decode({static_cast<const char *>(bytes), size},
                                 max_pixels ? max_pixels : kMaxPixels);
        *image = {picture.rgb.release(), picture.width, picture.height};
    });
}

void edgetl_free_image(edgetl_image *image) {
    if (!image) return;
    std::free(image->pixels);
    *image = {};
}

edgetl_code edgetl_open(const char *path, const char *precision, int32_t threads,
                        edgetl_model **model, edgetl_error *error) {
    if (model) *model = nullptr;
    return guarded(error, [&] {
        require(model && path && *path, "path and model may not be NULL or empty");
        require(threads >= 0, "threads may not be below 0");
        *model = new edgetl_model(path, precision, threads);
    });
}

void edgetl_close(edgetl_model *model) { delete model; }

int32_t edgetl_classes(const edgetl_model *model) {
    return model ? static_cast<int32_t>(model->labels.size()) : 0;
}

const char *edgetl_label(const edgetl_model *model, int32_t index) {
    return index >= 0 && index < edgetl_classes(model) ? model->labels[index].c_str() : nullptr;
}

double edgetl_unknown_threshold(const edgetl_model *model) {
    return model ? model->unknown_threshold : std::numeric_limits<double>::quiet_NaN();
}

edgetl_code edgetl_predict(const edgetl_model *model, const edgetl_image *images, size_t count,
                           float *logits, float *probabilities, float *ood_scores,
                           edgetl_error *error) {
    return guarded(error, [&] {
        require(model && (images || !count), "model and images may not be NULL");
        for (size_t i = 0; i < count; ++i) {
            const edgetl_image &image = images[i];
            require(image.pixels && image.width > 0 && image.height > 0, "an image has no pixels");
            Answer answer = model->predict(image);  // one by one: a CPU gains nothing from more
            const size_t classes = answer.logits.size();
            if (logits) std::copy_n(answer.logits.data(), classes, logits + i * classes);
            if (probabilities)
                std::copy_n(answer.probabilities.data(), classes, probabilities + i * classes);
            if (ood_scores) ood_scores[i] = answer.ood_score;
        }
    });
}

edgetl_code edgetl_resize(const edgetl_model *model, const edgetl_image *image,
                          edgetl_image *resized, edgetl_error *error) {
    if (resized) *resized = {};
    return guarded(error, [&] {
        require(model && image && resized && image->pixels && image->width > 0 && image->height > 0,
                "model, image, its pixels and resized may not be NULL");
        Size size = model->spec->output(model->spec->resized(image->height, image->width));
        Pixels pixels = resize(*image, *model->spec);
        Picture picture;
        picture.allocate(static_cast<uint64_t>(size.width), static_cast<uint64_t>(size.height),
                         kMaxPixels);
        std::memcpy(picture.rgb.get(), pixels.data(), pixels.size());
        *resized = {picture.rgb.release(), picture.width, picture.height};
    });
}

int32_t edgetl_top(const edgetl_model *model, const float *probabilities, int32_t top,
                   int32_t *indices) {
    const int32_t classes = edgetl_classes(model), count = std::clamp(top, 0, classes);
    if (!probabilities || !indices) return 0;
    // Of equal ones, the first. Each pass takes the next after the last: no memory, no failure.
    for (int32_t i = 0; i < count; ++i) {
        auto before = [&](int32_t a, int32_t b) {
            float p = probabilities[a], q = probabilities[b];
            return p != q ? p > q : a < b;
        };
        int32_t best = -1;
        for (int32_t c = 0; c < classes; ++c)
            if ((i == 0 || before(indices[i - 1], c)) && (best < 0 || before(c, best))) best = c;
        indices[i] = best;
    }
    return count;
}

edgetl_code edgetl_selftest(const edgetl_model *model,
                            void (*report)(const edgetl_golden *result, void *context),
                            void *context, edgetl_error *error) {
    return guarded(error, [&] {
        require(model, "model may not be NULL");
        bool passed = run_selftest(*model, [&](const std::string &file, const auto &result) {
            const char *stage = result.stage.empty() ? nullptr : result.stage.c_str();
            edgetl_golden golden{file.c_str(), stage, result.detail.c_str()};
            if (report) report(&golden, context);
        });
        if (!passed) throw Failure{EDGETL_DIFFERENT, "the answers are not the trained model's"};
    });
}
