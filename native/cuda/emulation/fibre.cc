#include "cuda/emulation/fibre.h"

#include <sys/mman.h>

#include <cstdint>
#include <new>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace rolegrad::emulation {

namespace {

/// Of each fibre: kernels keep little on it, but a sanitizer's frames are large.
constexpr size_t kStack = size_t(128) << 10;

}  // namespace

#if defined(__x86_64__)
extern "C" void rolegrad_switch_stack(void** save, void* to);
// rbx, rbp, r12 to r15 are the callee's to keep; all else the caller of a function has saved.
asm(R"(
.text
.local rolegrad_switch_stack
.type rolegrad_switch_stack, @function
rolegrad_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size rolegrad_switch_stack, .-rolegrad_switch_stack
)");
#endif

struct Fibre::State {
  void* stack = nullptr;
  void (*entry)(void*) = nullptr;
  void* argument = nullptr;
  bool running = false;
#if defined(__x86_64__)
  void *own = nullptr, *caller = nullptr;
#else
  ucontext_t own, caller;
#endif
#if defined(__SANITIZE_ADDRESS__)
  void* fake = nullptr;
  const void* caller_stack = nullptr;
  size_t caller_size = 0;
#endif

  void switch_in() {
#if defined(__SANITIZE_ADDRESS__)
    void* before = nullptr;
    __sanitizer_start_switch_fiber(&before, stack, kStack);
#endif
#if defined(__x86_64__)
    rolegrad_switch_stack(&caller, own);
#else
    swapcontext(&caller, &own);
#endif
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(before, nullptr, nullptr);
#endif
  }

  void switch_out([[maybe_unused]] bool last) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(last ? nullptr : &fake, caller_stack, caller_size);
#endif
#if defined(__x86_64__)
    rolegrad_switch_stack(&own, caller);
#else
    swapcontext(&own, &caller);
#endif
    entered();
  }

  void entered() {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(fake, &caller_stack, &caller_size);
#endif
  }

  static State* starting;
  static void body() {
    State* self = starting;
    self->entered();
    self->entry(self->argument);
    self->running = false;
    self->switch_out(true);
  }
};

Fibre::State* Fibre::State::starting = nullptr;

Fibre::Fibre() : state_(std::make_unique<State>()) {
  state_->stack = mmap(nullptr, kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (state_->stack == MAP_FAILED) throw std::bad_alloc();
}

Fibre::~Fibre() { munmap(state_->stack, kStack); }

void Fibre::start(void (*entry)(void*), void* argument) {
  State& s = *state_;
  s.entry = entry, s.argument = argument, s.running = true;
#if defined(__SANITIZE_ADDRESS__)
  s.fake = nullptr;
#endif
#if defined(__x86_64__)
  // Six registers, the entry as return address, and a slot that leaves the stack as after a call.
  auto* top = reinterpret_cast<uintptr_t*>(static_cast<char*>(s.stack) + kStack) - 1;
  top[0] = 0;
  top[-1] = reinterpret_cast<uintptr_t>(&State::body);
  for (int i = 2; i <= 7; i++) top[-i] = 0;
  s.own = top - 7;
#else
  getcontext(&s.own);
  s.own.uc_stack.ss_sp = s.stack;
  s.own.uc_stack.ss_size = kStack;
  s.own.uc_link = nullptr;
  makecontext(&s.own, &State::body, 0);
#endif
}

bool Fibre::resume() {
  State::starting = state_.get();
  state_->switch_in();
  return state_->running;
}

void Fibre::yield() { state_->switch_out(false); }

}  // namespace rolegrad::emulation
