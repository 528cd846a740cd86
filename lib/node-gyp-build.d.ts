declare module "node-gyp-build" {
  function load(directory: string): unknown;
  namespace load {
    /** The file that would be loaded; throws when there is none. */
    function path(directory: string): string;
  }
  export default load;
}
