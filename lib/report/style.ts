/** The page's style sheet. Colours are variables, so that charts, annotated text and print follow light and dark together. */
export const STYLE = `
:root {
  color-scheme: light dark;
  --page: #ffffff; --card: #f6f7f9; --rule: #d8dce2; --text: #1c2128; --soft: #55606e; --main: #1f4e9c;
  --role-0: #0b5cad; --role-1: #a34100; --role-2: #6b3fa0; --role-3: #a3195b; --output: #1f6b3b;
  --right: #17663a; --wrong: #b3261e;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #12161c; --card: #1b212a; --rule: #353e4b; --text: #e7ebf0; --soft: #a3aebc; --main: #8ab8ff;
    --role-0: #7cbcff; --role-1: #ffb07a; --role-2: #c9a7ff; --role-3: #ff94c2; --output: #86d3a0;
    --right: #7bd69b; --wrong: #ff9a90;
  }
}
@media print {
  :root {
    color-scheme: light;
    --page: #ffffff; --card: #ffffff; --rule: #c4c9d0; --text: #000000; --soft: #444c56; --main: #1f4e9c;
    --role-0: #0b5cad; --role-1: #a34100; --role-2: #6b3fa0; --role-3: #a3195b; --output: #1f6b3b;
    --right: #17663a; --wrong: #b3261e;
  }
}
* { box-sizing: border-box; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
body {
  margin: 0; background: var(--page); color: var(--text); line-height: 1.5;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
header, main, footer { max-width: 1040px; margin: 0 auto; padding: 0 20px; }
header { padding-top: 40px; }
footer { padding: 32px 20px 40px; color: var(--soft); font-size: 14px; }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 6px; letter-spacing: -0.01em; overflow-wrap: anywhere; }
h2 { font-size: 21px; margin: 0 0 14px; letter-spacing: -0.01em; }
h3 { font-size: 15px; margin: 0 0 8px; }
p { margin: 0 0 12px; }
section { margin: 40px 0 0; }
.soft { color: var(--soft); }
.kicker { color: var(--soft); font-size: 14px; margin: 0 0 4px; }
.card { background: var(--card); border: 1px solid var(--rule); border-radius: 12px; padding: 22px 24px; }
code, pre, .trajectory { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
pre { margin: 0; padding: 14px 16px; font-size: 14px; overflow-x: auto; background: var(--card); border: 1px solid var(--rule); border-radius: 8px; }

.headline { display: flex; flex-wrap: wrap; align-items: baseline; gap: 4px 18px; margin: 0 0 4px; font-size: 46px; line-height: 1.15; font-weight: 650; letter-spacing: -0.02em; font-variant-numeric: tabular-nums; }
.headline .from { color: var(--soft); font-weight: 500; }
.headline .arrow { color: var(--soft); font-weight: 400; }
.headline .to { color: var(--main); }
.intervals { list-style: none; margin: 20px 0 0; padding: 0; }
.intervals li { display: grid; grid-template-columns: 180px minmax(0, 1fr) 245px; gap: 0 16px; align-items: center; padding: 5px 0; }
.intervals .rail { grid-column: 2; grid-row: 1; }
.intervals .value { grid-column: 3; grid-row: 1; text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.intervals li.scale { display: flex; justify-content: space-between; margin: 0 261px 0 196px; padding: 0; color: var(--soft); font-size: 12px; }
.rail { position: relative; height: 20px; background: linear-gradient(var(--rule), var(--rule)) center / 100% 1px no-repeat; border-left: 1px solid var(--rule); border-right: 1px solid var(--rule); }
.rail::before { content: ""; position: absolute; inset: 5px 25%; border-left: 1px solid var(--rule); border-right: 1px solid var(--rule); }
.rail::after { content: ""; position: absolute; inset: 5px 50%; border-left: 1px solid var(--rule); }
.rail i { position: absolute; top: 7px; height: 6px; border-radius: 3px; min-width: 2px; background: var(--c); opacity: 0.35; z-index: 1; }
.rail b { position: absolute; top: 4px; width: 12px; height: 12px; margin-left: -6px; border-radius: 50%; background: var(--c); z-index: 2; }
.facts { display: flex; flex-wrap: wrap; gap: 6px 28px; margin: 22px 0 0; padding: 16px 0 0; border-top: 1px solid var(--rule); }
.facts div { display: flex; flex-direction: column-reverse; }
.facts dt { color: var(--soft); font-size: 13px; }
.facts dd { margin: 0; font-weight: 600; font-variant-numeric: tabular-nums; }

.answers { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 400px), 1fr)); gap: 20px; }
.answer { border: 1px solid var(--rule); border-radius: 12px; overflow: hidden; }
.answer header { max-width: none; padding: 12px 16px; background: var(--card); border-bottom: 1px solid var(--rule); display: flex; justify-content: space-between; gap: 12px; flex-wrap: wrap; }
.answer h3 { margin: 0; }
.verdict { font-weight: 600; }
.verdict.right { color: var(--right); } .verdict.wrong { color: var(--wrong); }
.trajectory { list-style: none; margin: 0; padding: 10px 0; font-size: 13.5px; line-height: 1.55; }
.trajectory li { display: grid; grid-template-columns: 66px minmax(0, 1fr); gap: 12px; padding: 4px 16px 4px 12px; border-left: 4px solid var(--c); margin: 3px 0; }
.trajectory .who { color: var(--c); font-weight: 600; text-align: right; overflow-wrap: anywhere; font-size: 12.5px; padding-top: 1px; }
.trajectory .what { white-space: pre-wrap; overflow-wrap: anywhere; unicode-bidi: isolate; }
.trajectory .given .what { color: var(--soft); }
.trajectory .prompt .what { color: var(--text); }
.keys { list-style: none; display: flex; flex-wrap: wrap; gap: 4px 20px; margin: 14px 0 0; padding: 0; color: var(--soft); font-size: 14px; }
.keys b { color: var(--c); }

.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 400px), 1fr)); gap: 28px 24px; }
figure { margin: 0; }
.chart svg { display: block; width: 100%; height: auto; overflow: visible; }
.chart .tick { font-size: 12px; fill: var(--soft); font-variant-numeric: tabular-nums; }
.chart .label { font-size: 12px; fill: var(--soft); }
.chart .end { font-size: 12px; font-weight: 600; fill: var(--c); font-variant-numeric: tabular-nums; }
.grid { stroke: var(--rule); stroke-width: 1; opacity: 0.7; }
.axis { stroke: var(--soft); stroke-width: 1; }
.line { fill: none; stroke: var(--c); stroke-width: 1.8; stroke-linejoin: round; }
.band { fill: var(--c); opacity: 0.13; }
.whisker { fill: none; stroke: var(--c); stroke-width: 1.2; opacity: 0.7; }
.mark { fill: var(--c); }
.legend { list-style: none; margin: 4px 0 0; padding: 0 0 0 12%; display: flex; flex-wrap: wrap; gap: 2px 18px; font-size: 13.5px; color: var(--soft); }
.chart .legend svg { width: 30px; height: 10px; display: inline-block; margin-right: 4px; }
.c-0 { --c: var(--role-0); } .c-1 { --c: var(--role-1); } .c-2 { --c: var(--role-2); } .c-3 { --c: var(--role-3); }
.c-main { --c: var(--main); } .c-muted { --c: var(--soft); } .c-output { --c: var(--output); }

.wide { overflow-x: auto; }
table.data { border-collapse: collapse; width: 100%; font-size: 14.5px; font-variant-numeric: tabular-nums; }
table.data caption { text-align: left; color: var(--soft); padding: 0 0 8px; }
table.data th, table.data td { padding: 7px 12px 7px 0; text-align: left; border-bottom: 1px solid var(--rule); vertical-align: top; }
table.data thead th { color: var(--soft); font-weight: 600; white-space: nowrap; }
table.data .number { text-align: right; white-space: nowrap; }
table.data td { overflow-wrap: break-word; }
table.setup td { overflow-wrap: anywhere; }
table.setup th { width: 190px; font-weight: 500; color: var(--soft); }
details { margin-top: 18px; }
summary { cursor: pointer; color: var(--main); }
details > .wide, details > pre { margin-top: 12px; }
.remark { border-left: 4px solid var(--wrong); padding-left: 12px; }
@media (max-width: 620px) {
  header { padding-top: 24px; }
  .headline { font-size: 31px; gap: 2px 10px; }
  .card { padding: 18px 16px; }
  .intervals li { grid-template-columns: minmax(0, 1fr) auto; }
  .intervals li { gap: 0 8px; font-size: 14.5px; }
  .intervals .value { grid-column: 2; }
  .intervals .rail { grid-column: 1 / -1; grid-row: 2; }
  .intervals li.scale { margin: 0; }
  table.setup th { width: 120px; }
  .trajectory li { grid-template-columns: 54px minmax(0, 1fr); gap: 10px; padding-right: 12px; }
}
@media print {
  body { font-size: 13px; }
  header { padding-top: 0; }
  section { margin-top: 26px; }
  section.card, figure, .answer, tr { break-inside: avoid; }
  h2 { break-after: avoid; }
  .charts, .answers { grid-template-columns: 1fr 1fr; gap: 18px; }
  .answers, .trajectory { font-size: 11px; }
  .wide { overflow: visible; }
  table.data { font-size: 11px; }
  table.data thead th { white-space: normal; }
  pre { white-space: pre-wrap; }
}
`;
