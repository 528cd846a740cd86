#include "bindings/run_async.h"

#include <condition_variable>
#include <memory>
#include <mutex>

#include "core/stream.h"

#if defined(_WIN32)
#include <windows.h>
#else
#include <dlfcn.h>
#endif

namespace rolegrad::bindings {
namespace {

struct Task {
  explicit Task(Napi::Env env) : deferred(env) {}

  Napi::Promise::Deferred deferred;
  std::function<void(const std::atomic<bool>&)> work;
  std::function<Napi::Value(Napi::Env)> complete;
  std::shared_ptr<std::atomic<bool>> stop = std::make_shared<std::atomic<bool>>(false);
  std::exception_ptr error;
  std::mutex mutex;
  std::condition_variable ended;
  bool done = false;
};

/// On the JavaScript thread, after the work. Without an environment (it is closing) nobody waits for the promise.
void settle(Napi::Env env, Napi::Function, Task* task, void*) {
  if (env == nullptr) return;
  try {
    try {
      if (task->error) std::rethrow_exception(task->error);
      task->deferred.Resolve(task->complete(env));
    } catch (...) {
      task->deferred.Reject(to_js_error(env, std::current_exception()).Value());
    }
  } catch (const Napi::Error&) {
    // JavaScript can no longer run here (a worker is being terminated): nobody is left to tell.
  }
}

/// Keeps the addon in memory until the process ends. Node unloads an addon with the last environment that loaded it,
/// which may be a worker's, and the engine's threads outlive that.
void pin_addon() {
#if defined(_WIN32)
  HMODULE module;
  GetModuleHandleExA(GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS | GET_MODULE_HANDLE_EX_FLAG_PIN,
                     reinterpret_cast<LPCSTR>(&pin_addon), &module);
#else
  Dl_info info;
  if (dladdr(reinterpret_cast<void*>(&pin_addon), &info) != 0)
    dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE);
#endif
}

using Settle = Napi::TypedThreadSafeFunction<Task, void, settle>;

}  // namespace

Napi::Object run_async(Napi::Env env, std::function<void(const std::atomic<bool>&)> work,
                       std::function<Napi::Value(Napi::Env)> complete) {
  [[maybe_unused]] static const bool pinned = (pin_addon(), true);
  auto* task = new Task(env);
  task->work = std::move(work);
  task->complete = std::move(complete);

  const Napi::Promise promise = task->deferred.Promise();
  // The finalizer waits for the job: an environment that closes in mid-step (a worker's end) must outlive what the job
  // touches.
  Settle settle_later = Settle::New(env, "rolegrad", 0, 1, task, [](Napi::Env, void*, Task* ended) {
    ended->stop->store(true);
    {
      std::unique_lock lock(ended->mutex);
      ended->ended.wait(lock, [&] { return ended->done; });
    }
    delete ended;
  });
  Napi::Object handle = Napi::Object::New(env);
  handle.Set("promise", promise);
  handle.Set("abort",
             Napi::Function::New(env, [stop = task->stop](const Napi::CallbackInfo&) { stop->store(true); }, "abort"));
  Stream::shared().submit([task, settle_later]() mutable {
    try {
      task->work(*task->stop);
    } catch (...) {
      task->error = std::current_exception();
    }
    task->work = nullptr;
    // A closing environment takes the function away with this answer: it must not be touched again.
    if (settle_later.NonBlockingCall() != napi_closing) settle_later.Release();
    std::lock_guard lock(task->mutex);
    task->done = true;
    task->ended.notify_all();
  });
  return handle;
}

}  // namespace rolegrad::bindings
