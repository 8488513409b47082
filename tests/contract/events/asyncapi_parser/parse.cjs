// Reads AsyncAPI documents, one a file, and prints what the parser has to say about each, as JSON.
globalThis.window = globalThis.self = globalThis;
const Parser = require("./parser.min.js");
const { readFileSync } = require("node:fs");

const parse = async (file) => {
  const { document, diagnostics } = await new Parser().parse(readFileSync(file, "utf8"));
  return { read: document !== undefined, findings: diagnostics.map(({ code, path }) => [code, path.join(".")]) };
};

Promise.all(process.argv.slice(2).map(parse)).then((found) => console.log(JSON.stringify(found)));
