// Compiles lib/ into build/fuzz/lib with a counter at every function, branch and loop: what fuzz.mjs is guided by.
import { mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import ts from "typescript";

export const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../..");
export const mapSize = 1 << 16;

/** Writes the instrumented sources; returns their folder, how many counters there are, and the strings that they speak of. */
export function instrument() {
  const to = path.join(root, "build/fuzz/lib");
  rmSync(to, { recursive: true, force: true });
  const { options } = ts.parseJsonConfigFileContent(
    ts.readConfigFile(path.join(root, "tsconfig.json"), (file) => readFileSync(file, "utf8")).config,
    ts.sys,
    root,
  );
  const state = { next: 0, words: new Set() };
  const names = readdirSync(path.join(root, "lib"), { recursive: true }).map(String);
  for (const name of names.filter((each) => each.endsWith(".ts") && !each.endsWith(".d.ts"))) {
    const file = path.join(to, name.replace(/\.ts$/, ".js"));
    mkdirSync(path.dirname(file), { recursive: true });
    const counted = /^(model|adapters)\//.test(name);
    const { outputText } = ts.transpileModule(readFileSync(path.join(root, "lib", name), "utf8"), {
      fileName: name,
      compilerOptions: { ...options, module: ts.ModuleKind.ESNext, sourceMap: false, incremental: false },
      transformers: counted ? { before: [counters(state)] } : {},
    });
    writeFileSync(file, outputText);
  }
  // binding.ts looks for package.json one folder above its own.
  writeFileSync(path.join(to, "../package.json"), readFileSync(path.join(root, "package.json")));
  const modules = path.join(to, "../node_modules");
  rmSync(modules, { force: true });
  symlinkSync(path.join(root, "node_modules"), modules);
  if (state.next > mapSize) throw new Error(`${state.next} counters do not fit the map of ${mapSize}`);
  return { folder: to, counters: state.next, words: [...state.words] };
}

/** globalThis.__fuzz[n]++ wherever control may go. */
function counters(state) {
  return (context) => {
    const { factory } = context;
    const count = () =>
      factory.createPostfixIncrement(
        factory.createElementAccessExpression(
          factory.createPropertyAccessExpression(factory.createIdentifier("globalThis"), "__fuzz"),
          state.next++,
        ),
      );
    const statement = () => factory.createExpressionStatement(count());
    const block = (node) =>
      ts.isBlock(node)
        ? factory.updateBlock(node, [statement(), ...node.statements])
        : factory.createBlock([statement(), node], true);
    const counted = (expression) => factory.createParenthesizedExpression(factory.createComma(count(), expression));
    const visit = (node) => {
      if (ts.isTypeNode(node)) return node;
      if (ts.isStringLiteralLike(node) && node.text.length < 40) state.words.add(node.text);
      const out = ts.visitEachChild(node, visit, context);
      if (ts.isPropertyAssignment(out) && ts.isIdentifier(out.name)) state.words.add(out.name.text);
      if (ts.isFunctionLike(out) && out.body !== undefined) {
        const body = ts.isBlock(out.body) ? block(out.body) : counted(out.body);
        if (ts.isArrowFunction(out)) {
          const { modifiers, typeParameters, parameters, type, equalsGreaterThanToken: arrow } = out;
          return factory.updateArrowFunction(out, modifiers, typeParameters, parameters, type, arrow, body);
        }
        if (ts.isFunctionDeclaration(out)) {
          const { modifiers, asteriskToken, name, typeParameters, parameters, type } = out;
          return factory.updateFunctionDeclaration(
            ...[out, modifiers, asteriskToken, name, typeParameters, parameters, type, body],
          );
        }
        if (ts.isMethodDeclaration(out)) {
          const { modifiers, asteriskToken, name, questionToken, typeParameters, parameters, type } = out;
          return factory.updateMethodDeclaration(
            ...[out, modifiers, asteriskToken, name, questionToken, typeParameters, parameters, type, body],
          );
        }
        return out;
      }
      if (ts.isIfStatement(out)) {
        const otherwise =
          out.elseStatement === undefined ? factory.createBlock([statement()]) : block(out.elseStatement);
        return factory.updateIfStatement(out, out.expression, block(out.thenStatement), otherwise);
      }
      if (ts.isConditionalExpression(out)) {
        const { condition, questionToken, whenTrue, colonToken, whenFalse } = out;
        return factory.updateConditionalExpression(
          ...[out, condition, questionToken, counted(whenTrue), colonToken, counted(whenFalse)],
        );
      }
      if (ts.isBinaryExpression(out) && ["&&", "||", "??"].includes(ts.tokenToString(out.operatorToken.kind))) {
        return factory.updateBinaryExpression(out, out.left, out.operatorToken, counted(out.right));
      }
      if (ts.isForOfStatement(out)) {
        const { awaitModifier, initializer, expression } = out;
        return factory.updateForOfStatement(out, awaitModifier, initializer, expression, block(out.statement));
      }
      if (ts.isForStatement(out)) {
        const { initializer, condition, incrementor } = out;
        return factory.updateForStatement(out, initializer, condition, incrementor, block(out.statement));
      }
      if (ts.isCatchClause(out)) return factory.updateCatchClause(out, out.variableDeclaration, block(out.block));
      return out;
    };
    return (source) => ts.visitNode(source, visit);
  };
}
