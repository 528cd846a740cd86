export { startWatch, type WatchOptions, type WatchServer } from "./server.js";
