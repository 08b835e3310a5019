#!/usr/bin/env node
// The solc of npm, as a program that forge can use: nothing is downloaded.
import { readFileSync } from "node:fs";
import solc from "solc";

if (process.argv.includes("--version")) {
  console.log(`solc, the solidity compiler commandline interface\nVersion: ${solc.version()}`);
} else if (process.argv.includes("--standard-json")) {
  // forge hands over every source with its content.
  process.stdout.write(solc.compile(readFileSync(0, "utf8")));
} else {
  console.error("only --version and --standard-json");
  process.exitCode = 1;
}
