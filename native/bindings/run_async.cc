#include "bindings/run_async.h"

#include <condition_variable>
#include <memory>
#include <mutex>

#include "core/abort.h"
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
  std::string asked;
  Stream::Ticket ticket = 0;
  std::shared_ptr<std::atomic<bool>> stop = std::make_shared<std::atomic<bool>>(false);
  std::exception_ptr error;
  std::mutex mutex;
  std::condition_variable ended;
  bool done = false;
  bool abandoned = false;  // run_async itself threw: there is no promise to settle
};

/// On the JavaScript thread, after the work. Without an environment (it is closing) nobody waits for the promise.
void settle(Napi::Env env, Napi::Function, Task* task, void*) {
  if (env == nullptr || task->abandoned) return;
  try {
    try {
      if (task->error) std::rethrow_exception(task->error);
      task->deferred.Resolve(task->complete(env));
    } catch (...) {
      task->deferred.Reject(to_js_error(env, std::current_exception(), task->asked).Value());
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

/// On the stream's thread, or where the job is taken back.
void run(Task* task, Settle settle_later, bool wanted) {
  try {
    if (!wanted) throw Aborted();
    check_aborted();
    task->work(*task->stop);
  } catch (...) {
    task->error = std::current_exception();
  }
  task->work = nullptr;  // what the work held is free before the promise settles
  // A closing environment takes the function away with this answer: it must not be touched again.
  if (settle_later.NonBlockingCall() != napi_closing) settle_later.Release();
  std::lock_guard lock(task->mutex);
  task->done = true;
  task->ended.notify_all();
}

/// The job ends as soon as it can: at once where it has not begun.
void stop(std::atomic<bool>& flag, Stream::Ticket ticket) {
  flag.store(true);
  Stream::shared().cancel(ticket);
}

}  // namespace

Napi::Object run_async(Napi::Env env, std::function<void(const std::atomic<bool>&)> work,
                       std::function<Napi::Value(Napi::Env)> complete, std::string asked) {
  [[maybe_unused]] static const bool pinned = (pin_addon(), true);
  Stream& stream = Stream::shared();
  auto* task = new Task(env);
  task->work = std::move(work);
  task->complete = std::move(complete);
  task->asked = std::move(asked);

  const Napi::Promise promise = task->deferred.Promise();
  // The finalizer waits for the job: an environment that closes in mid-step (a worker's end) must outlive what the job
  // touches.
  Settle settle_later = Settle::New(env, "rolegrad", 0, 1, task, [](Napi::Env, void*, Task* ended) {
    stop(*ended->stop, ended->ticket);
    {
      std::unique_lock lock(ended->mutex);
      ended->ended.wait(lock, [&] { return ended->done; });
    }
    delete ended;
  });
  Napi::Object handle = Napi::Object::New(env);
  handle.Set("promise", promise);
  try {
    task->ticket = stream.submit([task, settle_later](bool wanted) { run(task, settle_later, wanted); }, task->stop);
  } catch (...) {
    task->abandoned = true;
    run(task, settle_later, false);
    throw;
  }
  handle.Set("abort",
             Napi::Function::New(
                 env, [flag = task->stop, ticket = task->ticket](const Napi::CallbackInfo&) { stop(*flag, ticket); },
                 "abort"));
  return handle;
}

}  // namespace rolegrad::bindings
