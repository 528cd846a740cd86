/** What native/bindings/run_async.cc gives. */

/** Work on the engine's stream; `abort` asks it to end early. */
export interface NativeJob<T> {
  promise: Promise<T>;
  abort: () => void;
}
