// edgetl-predict: classify photos with an exported model, or test a bundle on this device.
#include "edgetl.h"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>
#include <vector>

#ifdef _WIN32
#include <fcntl.h>
#include <io.h>
#endif

namespace {

const char kUsage[] =
    "Usage: edgetl-predict [OPTIONS] MODEL PHOTO...\n"
    "       edgetl-predict [OPTIONS] --selftest BUNDLE\n"
    "       edgetl-predict [OPTIONS] --stages MODEL\n"
    "\n"
    "Classify photos, JPEG or PNG, with MODEL, a bundle folder or a lone model.onnx. A photo that\n"
    "can't be read is reported and the others are still classified; the exit code is then 1.\n"
    "\n"
    "  --json            Print one JSON object per line, not a table.\n"
    "  --top N           Only the N best classes. [default: 1 in the table, all in JSON]\n"
    "  --precision NAME  Which of the bundle's models: fp32, fp16 or int8.\n"
    "  --threads N       Threads inside one run. [default: one per core]\n"
    "  --selftest        Run the bundle's golden photos and compare with the answers in it.\n"
    "  --stages          Read photos from stdin, and write every stage to stdout, for edgetl check.\n"
    "\n"
    "Example:\n"
    "  edgetl-predict exported/pets photo.jpg --top 3\n";

struct Options {
    bool json = false, selftest = false, stages = false;
    int top = 0, threads = 0;
    const char *precision = nullptr;
    std::vector<const char *> names;  // the model, then the photos
};

int number(const char *text) {
    int value = 0;
    auto [end, problem] = std::from_chars(text, text + std::strlen(text), value);
    return problem == std::errc() && !*end && value > 0 ? value : -1;
}

bool parse(int count, char **arguments, Options &options) {
    for (int i = 1; i < count; ++i) {
        const std::string name = arguments[i];
        const char *next = i + 1 < count ? arguments[i + 1] : "";
        if (name == "--json") {
            options.json = true;
        } else if (name == "--selftest") {
            options.selftest = true;
        } else if (name == "--stages") {
            options.stages = true;
        } else if (name == "--top" || name == "--threads") {
            (name == "--top" ? options.top : options.threads) = number(next);
            if (number(next) < 0) return false;
            ++i;
        } else if (name == "--precision") {
            options.precision = next;
            ++i;
        } else if (name.size() > 1 && name[0] == '-') {
            return false;
        } else {
            options.names.push_back(arguments[i]);
        }
    }
    return options.selftest || options.stages ? options.names.size() == 1
                                              : options.names.size() >= 2;
}

std::string json_string(const std::string &text) {
    std::string result = "\"";
    for (char c : text) {
        char escape[8];
        if (c == '"' || c == '\\') {
            (result += '\\') += c;
        } else if (static_cast<unsigned char>(c) < 0x20) {
            std::snprintf(escape, sizeof escape, "\\u%04x", c);
            result += escape;
        } else {
            result += c;
        }
    }
    return result + '"';
}

std::string digits(double value) {  // as many as it takes to read the same number back
    char text[32];
    return {text, std::to_chars(text, text + sizeof text, value).ptr};
}

std::string printable(std::string text) {  // a control character could move the cursor
    for (char &c : text)
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) c = '?';
    return text;
}

// Decode and classify one file; returns the reason if that fails.
std::string classify(const edgetl_model *model, const char *name, std::vector<float> &probabilities,
                     float &score) {
    std::error_code ignored;
    if (!std::filesystem::exists(name, ignored)) return "no such file";
    // Opening a FIFO could wait for ever.
    if (!std::filesystem::is_regular_file(name, ignored)) return "it is not a regular file";
    std::ifstream file(name, std::ios::binary);
    if (!file) return "it can't be read";
    std::string content{std::istreambuf_iterator<char>(file), {}};
    edgetl_error error;
    edgetl_image image;
    if (edgetl_decode(content.data(), content.size(), 0, &image, &error)) return error.message;
    edgetl_predict(model, &image, 1, nullptr, probabilities.data(), &score, &error);
    edgetl_free_image(&image);
    return error.message;
}

void print_json(const edgetl_model *model, const char *name,
                const std::vector<float> &probabilities, float score,
                const std::vector<int32_t> &shown, bool all) {
    const int32_t best = shown[0];
    std::string line = "{\"source\": " + json_string(name) +
                       ", \"label\": " + json_string(edgetl_label(model, best)) +
                       ", \"confidence\": " + digits(probabilities[best]) +
                       ", \"probabilities\": {";
    for (size_t i = 0; i < shown.size(); ++i) {
        const int32_t index = all ? static_cast<int32_t>(i) : shown[i];
        line += (i ? ", " : "") + json_string(edgetl_label(model, index)) + ": " +
                digits(probabilities[index]);
    }
    line += "}";
    const double threshold = edgetl_unknown_threshold(model);
    if (score == score) line += ", \"ood_score\": " + digits(score);
    if (score == score && threshold == threshold)
        line += std::string(", \"unknown\": ") + (score > threshold ? "true" : "false");
    std::puts((line + "}").c_str());
}

void print_row(const edgetl_model *model, const char *name, const std::vector<float> &probabilities,
               float score, const std::vector<int32_t> &shown) {
    for (size_t i = 0; i < shown.size(); ++i) {
        const bool unknown = score > edgetl_unknown_threshold(model);  // false if either is NaN
        std::string photo = i ? "" : "  " + printable(name) + (unknown ? "  (unknown)" : "");
        std::printf("%9.2f%%  %-20s%s\n", 100.0 * probabilities[shown[i]],
                    printable(edgetl_label(model, shown[i])).c_str(), photo.c_str());
    }
}

int predict(const edgetl_model *model, const Options &options) {
    const int classes = edgetl_classes(model);
    std::vector<float> probabilities(classes);
    int failed = 0;
    if (!options.json) std::puts("confidence  label                 photo");
    for (size_t i = 1; i < options.names.size(); ++i) {
        const char *name = options.names[i];
        float score = 0;
        std::string reason = classify(model, name, probabilities, score);
        if (!reason.empty()) {
            ++failed;
            if (options.json)
                std::printf("{\"source\": %s, \"error\": %s}\n", json_string(name).c_str(),
                            json_string(reason).c_str());
            else
                std::printf("%10s  %s: %s\n", "error", printable(name).c_str(), reason.c_str());
            continue;
        }
        std::vector<int32_t> shown(
            std::min(classes, options.top ? options.top : options.json ? classes : 1));
        edgetl_top(model, probabilities.data(), static_cast<int32_t>(shown.size()), shown.data());
        if (options.json)
            print_json(model, name, probabilities, score, shown, !options.top);
        else
            print_row(model, name, probabilities, score, shown);
    }
    return failed ? 1 : 0;
}

int selftest(const edgetl_model *model) {
    edgetl_error error;
    auto print = [](const edgetl_golden *result, void *) {
        std::printf("%-14s %s  %s\n", result->stage ? result->stage : "ok", result->file,
                    result->detail);
    };
    edgetl_selftest(model, print, nullptr, &error);
    std::puts(error.code ? (std::string("FAILED: ") + error.message).c_str() : "passed");
    return error.code ? 1 : 0;
}

template <class Value>
void append(std::string &answer, const std::string &header, const Value *values, size_t count) {
    answer += header + "\n";
    answer.append(reinterpret_cast<const char *>(values), count * sizeof(Value));
}

void append_image(std::string &answer, const std::string &name, const edgetl_image &image) {
    const std::string shape = std::to_string(image.height) + " " + std::to_string(image.width);
    append(answer, name + " uint8 " + shape + " 3", image.pixels,
           static_cast<size_t>(image.height) * image.width * 3);
}

// What `edgetl check` reads: each stage's name, type and shape on a line, then its values.
std::string stages_of(const edgetl_model *model, const std::string &content) {
    const int classes = edgetl_classes(model);
    std::vector<float> logits(classes), probabilities(classes);
    float score = 0;
    edgetl_error error;
    edgetl_image image, resized{};
    if (edgetl_decode(content.data(), content.size(), 0, &image, &error))
        return std::string("refused ") + error.message + "\n";
    if (!edgetl_resize(model, &image, &resized, &error))
        edgetl_predict(model, &image, 1, logits.data(), probabilities.data(), &score, &error);
    std::string answer;
    if (error.code) {
        const char *word = error.code == EDGETL_BAD_PHOTO ? "refused " : "failed ";
        answer = std::string(word) + error.message + "\n";
    } else {
        append_image(answer, "decoded", image);
        append_image(answer, "resized", resized);
        const std::string shape = " float32 " + std::to_string(classes);
        append(answer, "logits" + shape, logits.data(), logits.size());
        append(answer, "probabilities" + shape, probabilities.data(), probabilities.size());
        if (score == score) append(answer, "ood_score float32", &score, 1);
    }
    edgetl_free_image(&image);
    edgetl_free_image(&resized);
    return answer;
}

// Each photo and each answer comes after its length, a uint32 in this machine's byte order.
int serve_stages(const edgetl_model *model) {
#ifdef _WIN32
    _setmode(_fileno(stdin), _O_BINARY);
    _setmode(_fileno(stdout), _O_BINARY);
#endif
    uint32_t size;
    while (std::fread(&size, sizeof size, 1, stdin) == 1) {
        std::string content(size, 0);
        if (std::fread(content.data(), 1, size, stdin) != size) break;
        const std::string answer = stages_of(model, content);
        size = static_cast<uint32_t>(answer.size());
        std::fwrite(&size, sizeof size, 1, stdout);
        std::fwrite(answer.data(), 1, answer.size(), stdout);
        if (std::fflush(stdout)) return 1;
    }
    return 0;
}

}  // namespace

int main(int count, char **arguments) {
    Options options;
    if (!parse(count, arguments, options)) {
        std::fputs(kUsage, stderr);
        return 2;
    }
    // Debian's onnxruntime registers every operator twice, and prints thousands of lines about it.
    std::cerr.setstate(std::ios::failbit);
    edgetl_error error;
    edgetl_model *model;
    if (edgetl_open(options.names[0], options.precision, options.threads, &model, &error)) {
        std::fprintf(stderr, "Error: %s\n", error.message);
        return 2;
    }
    int code = options.stages     ? serve_stages(model)
               : options.selftest ? selftest(model)
                                  : predict(model, options);
    edgetl_close(model);
    return code;
}
