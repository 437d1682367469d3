// The checking flavour: what the compiler's instrumentation calls, in place of the sanitizers' libraries. Stands between emulator.h and the
// kernel's source.
//
// -fsanitize=thread announces every access to memory that others might see; the checker (crates/cuda/src/emulated/check.rs) judges it.
// -fsanitize=bounds-strict and its like report what is wrong in any case; that ends the block.
#pragma once
#include <cstdio>

namespace emulator {
// The fiber's own stack is nobody else's business, and is most of what is announced.
__attribute__((always_inline, no_sanitize("thread,undefined"))) static inline void look(const void* address, size_t bytes, unsigned kind, const void* site) {
    const uintptr_t at = reinterpret_cast<uintptr_t>(address);
    if (at >= current->stack_begin && at < current->stack_end) return;
    current->runtime->access(current, address, bytes, kind, site);
}
} // namespace emulator

#define RECEIVER extern "C" __attribute__((used, no_sanitize("thread,undefined"))) void
#define ANNOUNCED(name, bytes, kind) \
    RECEIVER name(void* address) { emulator::look(address, bytes, kind, __builtin_return_address(0)); }
#define ANNOUNCED_RANGE(name, kind) \
    RECEIVER name(void* address, size_t bytes) { emulator::look(address, bytes, kind, __builtin_return_address(0)); }

ANNOUNCED(__tsan_read1, 1, emulator::READ)
ANNOUNCED(__tsan_read2, 2, emulator::READ)
ANNOUNCED(__tsan_read4, 4, emulator::READ)
ANNOUNCED(__tsan_read8, 8, emulator::READ)
ANNOUNCED(__tsan_read16, 16, emulator::READ)
ANNOUNCED(__tsan_write1, 1, emulator::WRITE)
ANNOUNCED(__tsan_write2, 2, emulator::WRITE)
ANNOUNCED(__tsan_write4, 4, emulator::WRITE)
ANNOUNCED(__tsan_write8, 8, emulator::WRITE)
ANNOUNCED(__tsan_write16, 16, emulator::WRITE)
ANNOUNCED(__tsan_unaligned_read2, 2, emulator::READ | emulator::UNALIGNED)
ANNOUNCED(__tsan_unaligned_read4, 4, emulator::READ | emulator::UNALIGNED)
ANNOUNCED(__tsan_unaligned_read8, 8, emulator::READ | emulator::UNALIGNED)
ANNOUNCED(__tsan_unaligned_read16, 16, emulator::READ | emulator::UNALIGNED)
ANNOUNCED(__tsan_unaligned_write2, 2, emulator::WRITE | emulator::UNALIGNED)
ANNOUNCED(__tsan_unaligned_write4, 4, emulator::WRITE | emulator::UNALIGNED)
ANNOUNCED(__tsan_unaligned_write8, 8, emulator::WRITE | emulator::UNALIGNED)
ANNOUNCED(__tsan_unaligned_write16, 16, emulator::WRITE | emulator::UNALIGNED)
ANNOUNCED_RANGE(__tsan_read_range, emulator::READ | emulator::UNALIGNED)
ANNOUNCED_RANGE(__tsan_write_range, emulator::WRITE | emulator::UNALIGNED)
RECEIVER __tsan_init() {}
RECEIVER __tsan_func_entry(void*) {}
RECEIVER __tsan_func_exit() {}

// What the undefined behaviour sanitizer hands over: its own layout.
namespace emulator {
struct Spot {
    const char* file;
    unsigned line, column;
};
struct TypeName {
    uint16_t kind, info;
    char name[1];
};
struct Typed {
    Spot spot;
    const TypeName* type;
};
struct Indexed {
    Spot spot;
    const TypeName *array, *index;
};
struct Shift {
    Spot spot;
    const TypeName *left, *right;
};
struct Mismatch {
    Spot spot;
    const TypeName* type;
    unsigned char log_alignment, kind;
};
// Without the quotes around it.
struct Name {
    char text[120];
};
EMULATED_OWN Name name(const TypeName* type) {
    Name name = {};
    const size_t length = std::strlen(type->name);
    if (length > 1) std::memcpy(name.text, type->name + 1, std::min(length - 2, sizeof name.text - 1));
    return name;
}
// A value of that type, as it came.
EMULATED_OWN long long number(const TypeName* type, uintptr_t value) {
    const unsigned unused = 64 - (1u << (type->info >> 1));
    const long long wide = (long long)(value << unused);
    return type->info & 1 ? wide >> unused : (long long)((unsigned long long)wide >> unused);
}
template <class... A> EMULATED_OWN void report(const Spot& spot, const char* format, A... values) {
    char what[256];
    std::snprintf(what, sizeof what, format, values...);
    current->runtime->fail(current, what, spot.file, spot.line);
}
} // namespace emulator

// They never come back: the block has failed.
#define REPORTED extern "C" __attribute__((used, noreturn, no_sanitize("thread,undefined"))) void
#define REPORT(...) (emulator::report(__VA_ARGS__), __builtin_trap())
REPORTED __ubsan_handle_out_of_bounds_abort(emulator::Indexed* data, uintptr_t index) {
    REPORT(data->spot, "out of bounds: index %lld of %s", emulator::number(data->index, index), emulator::name(data->array).text);
}
REPORTED __ubsan_handle_shift_out_of_bounds_abort(emulator::Shift* data, uintptr_t value, uintptr_t by) {
    REPORT(data->spot, "shift of %s %lld by %lld bits", emulator::name(data->left).text, emulator::number(data->left, value), emulator::number(data->right, by));
}
REPORTED __ubsan_handle_divrem_overflow_abort(emulator::Typed* data, uintptr_t a, uintptr_t b) {
    REPORT(data->spot, "%lld / %lld is no number", emulator::number(data->type, a), emulator::number(data->type, b));
}
REPORTED __ubsan_handle_add_overflow_abort(emulator::Typed* data, uintptr_t a, uintptr_t b) {
    REPORT(data->spot, "%lld + %lld is no %s", emulator::number(data->type, a), emulator::number(data->type, b), emulator::name(data->type).text);
}
REPORTED __ubsan_handle_sub_overflow_abort(emulator::Typed* data, uintptr_t a, uintptr_t b) {
    REPORT(data->spot, "%lld - %lld is no %s", emulator::number(data->type, a), emulator::number(data->type, b), emulator::name(data->type).text);
}
REPORTED __ubsan_handle_mul_overflow_abort(emulator::Typed* data, uintptr_t a, uintptr_t b) {
    REPORT(data->spot, "%lld * %lld is no %s", emulator::number(data->type, a), emulator::number(data->type, b), emulator::name(data->type).text);
}
REPORTED __ubsan_handle_negate_overflow_abort(emulator::Typed* data, uintptr_t a) {
    REPORT(data->spot, "-(%lld) is no %s", emulator::number(data->type, a), emulator::name(data->type).text);
}
REPORTED __ubsan_handle_type_mismatch_v1_abort(emulator::Mismatch* data, uintptr_t address) {
    REPORT(data->spot, "misaligned: %s at %#llx, which is no multiple of %d", emulator::name(data->type).text, (unsigned long long)address, 1 << data->log_alignment);
}
