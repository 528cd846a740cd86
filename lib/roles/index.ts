export { RoleRouter, type RoleRouterOptions, type RoleSpan } from "./router.js";
