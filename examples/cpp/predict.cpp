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

namespace {

const char kUsage[] =
    "Usage: edgetl-predict [OPTIONS] MODEL PHOTO...\n"
    "       edgetl-predict [OPTIONS] --selftest BUNDLE\n"
    "\n"
    "Classify photos, JPEG or PNG, with MODEL, a bundle folder or a lone model.onnx. A photo that\n"
    "can't be read is reported and the others are still classified; the exit code is then 1.\n"
    "\n"
    "  --json            Print one JSON object per line, not a table.\n"
    "  --top N           Only the N best classes. [default: 1 in the table, all in JSON]\n"
    "  --precision NAME  Which of the bundle's models: fp32, fp16 or int8.\n"
    "  --threads N       Threads inside one run. [default: one per core]\n"
    "  --selftest        Run the bundle's golden photos and compare with the answers in it.\n"
    "\n"
    "Example:\n"
    "  edgetl-predict exported/pets photo.jpg --top 3\n";

struct Options {
    bool json = false, selftest = false;
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
    return options.selftest ? options.names.size() == 1 : options.names.size() >= 2;
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
    int code = options.selftest ? selftest(model) : predict(model, options);
    edgetl_close(model);
    return code;
}
