// Decode damaged copies of photos, for a build with sanitizers: scripts/fuzz_cpp.
#include "edgetl.h"

#include <zlib.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

namespace {

void put32(char *at, uint32_t value) {
    for (int i = 0; i < 4; ++i) at[i] = static_cast<char>(value >> (24 - 8 * i));
}

uint32_t get32(const char *at) {
    uint32_t value = 0;
    for (int i = 0; i < 4; ++i) value = value << 8 | static_cast<unsigned char>(at[i]);
    return value;
}

// Make a PNG's checksums right again, so that the damage reaches the code behind them.
void repair_checksums(std::string &photo) {
    for (size_t at = 8; at + 12 <= photo.size();) {
        size_t size = get32(&photo[at]);
        if (at + 12 + size > photo.size()) return;
        auto chunk = reinterpret_cast<const Bytef *>(&photo[at + 4]);
        uLong checksum = crc32(0, chunk, static_cast<uInt>(size + 4));
        put32(&photo[at + 8 + size], static_cast<uint32_t>(checksum));
        at += 12 + size;
    }
}

void damage(std::string &photo, std::mt19937 &random) {
    for (unsigned count = 1 + random() % 4; count--;) {
        // Every other time in the header, where the structure is.
        size_t reach = random() % 2 ? photo.size() : std::min<size_t>(photo.size(), 700);
        photo[random() % reach] = static_cast<char>(random());
    }
    if (random() % 8 == 0) photo.resize(1 + random() % photo.size());
    if (photo[0] == '\x89' && random() % 4) repair_checksums(photo);
}

}  // namespace

int main(int count, char **arguments) {
    if (count < 3) {
        std::fputs("Usage: fuzz ROUNDS PHOTO...\n", stderr);
        return 2;
    }
    std::vector<std::string> photos;
    for (int i = 2; i < count; ++i) {
        std::ifstream file(arguments[i], std::ios::binary);
        photos.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
        if (photos.back().empty()) return 2;
    }
    std::mt19937 random(1);
    long decoded = 0, refused = 0;
    for (long round = 0; round < std::atol(arguments[1]); ++round) {
        std::string photo = photos[static_cast<size_t>(round) % photos.size()];
        // First the whole ones.
        if (round >= static_cast<long>(photos.size())) damage(photo, random);
        edgetl_image image;
        edgetl_error error;
        if (edgetl_decode(photo.data(), photo.size(), 100000, &image, &error)) {
            if (!*error.message || image.pixels) std::abort();
            ++refused;
        } else {
            volatile uint8_t last = image.pixels[size_t(image.width) * image.height * 3 - 1];
            (void)last;
            ++decoded;
        }
        edgetl_free_image(&image);
    }
    std::printf("%ld decoded, %ld refused\n", decoded, refused);
    return 0;
}
