#!/usr/bin/env node
// The Node version is looked at first, in syntax that an old Node can read; nothing is imported before.
var needed = "20.19.0";
var have = process.versions.node.split(".").map(Number);
var need = needed.split(".").map(Number);
if (have[0] < need[0] || (have[0] === need[0] && have[1] < need[1])) {
  console.error(
    "error [ERR_NODE_VERSION]: Expected Node " +
      needed +
      " or newer but received " +
      process.versions.node +
      " (" +
      process.execPath +
      "). See https://nodejs.org",
  );
  process.exitCode = 1;
} else {
  import("../dist/cli/main.js").then(
    function (cli) {
      return cli.main(process.argv.slice(2));
    },
    function (error) {
      console.error(error);
      process.exitCode = 1;
    },
  );
}
