/** The page's style sheet. Colours are variables, so that charts, annotated text and print follow light and dark together. */
export const STYLE = `
:root {
  color-scheme: light dark;
  --page: #ffffff; --card: #f6f7f9; --rule: #d8dce2; --text: #1c2128; --soft: #55606e; --edge: #838d9a; --main: #1f4e9c;
  --role-0: #0b5cad; --role-1: #a34100; --role-2: #6b3fa0; --role-3: #a3195b; --role-4: #00696f; --role-5: #6a5600; --output: #1f6b3b;
  --right: #17663a; --wrong: #b3261e;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #12161c; --card: #1b212a; --rule: #353e4b; --text: #e7ebf0; --soft: #a3aebc; --edge: #6f7b8b; --main: #8ab8ff;
    --role-0: #7cbcff; --role-1: #ffb07a; --role-2: #c9a7ff; --role-3: #ff94c2; --role-4: #6fd6dc; --role-5: #e3cb62; --output: #86d3a0;
    --right: #7bd69b; --wrong: #ff9a90;
  }
}
@media print {
  :root {
    color-scheme: light;
    --page: #ffffff; --card: #ffffff; --rule: #c4c9d0; --text: #000000; --soft: #444c56; --edge: #838d9a; --main: #1f4e9c;
    --role-0: #0b5cad; --role-1: #a34100; --role-2: #6b3fa0; --role-3: #a3195b; --role-4: #00696f; --role-5: #6a5600; --output: #1f6b3b;
    --right: #17663a; --wrong: #b3261e;
  }
}
* { box-sizing: border-box; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
body {
  margin: 0; background: var(--page); color: var(--text); line-height: 1.5;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
body > header, main, body > footer { max-width: 1280px; margin: 0 auto; padding: 0 20px; }
body > header { padding-top: 32px; }
body > footer { padding: 32px 20px 40px; color: var(--soft); font-size: 14px; }
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

.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 340px), 1fr)); gap: 32px 28px; }
.charts.two { grid-template-columns: repeat(auto-fit, minmax(min(100%, 460px), 1fr)); }
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
.c-0 { --c: var(--role-0); } .c-1 { --c: var(--role-1); } .c-2 { --c: var(--role-2); } .c-3 { --c: var(--role-3); } .c-4 { --c: var(--role-4); } .c-5 { --c: var(--role-5); }
.c-main { --c: var(--main); } .c-muted { --c: var(--soft); } .c-output { --c: var(--output); } .c-wrong { --c: var(--wrong); }

.heading { display: flex; flex-wrap: wrap; justify-content: space-between; align-items: baseline; gap: 0 20px; }
.heading label, .keys label { cursor: pointer; }
.smoothing { color: var(--soft); font-size: 14px; }
body:not(:has(.calm)) .smoothing { display: none; }
.chart figcaption { min-height: 46px; }
.chart figcaption h3 { margin: 0; }
.hint { margin: 0 0 6px; color: var(--soft); font-size: 13px; line-height: 1.35; }
.smooth { fill: none; stroke: var(--c); stroke-width: 2.4; stroke-linejoin: round; display: none; }
body:has(#smooth:checked) .smooth { display: inline; }
body:has(#smooth:checked) .calm .line, body:has(#smooth:checked) .calm .mark { opacity: 0.3; }
body:has(#smooth:checked) .legend .line, body:has(#smooth:checked) .legend .mark { opacity: 1; }
.dense .line { stroke-width: 1; opacity: 0.4; }
.dense .smooth { display: inline; }
.dense .legend .line { stroke-width: 1.8; opacity: 1; }
.numbers { margin: 4px 0 0; font-size: 13px; }
.numbers > .wide { max-height: 260px; overflow-y: auto; }
table.data tbody th { font-weight: 500; }
.hidden { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
.plot { position: relative; }
.probe { position: absolute; touch-action: pan-y; border-radius: 3px; }
.probe .cursor { position: absolute; top: 0; bottom: 0; width: 1px; background: var(--soft); pointer-events: none; }
.tip { position: absolute; top: 2px; margin-left: 8px; padding: 5px 9px; background: var(--page); border: 1px solid var(--rule); border-radius: 6px; font-size: 12.5px; line-height: 1.45; white-space: nowrap; pointer-events: none; z-index: 3; box-shadow: 0 2px 8px rgb(0 0 0 / 18%); font-variant-numeric: tabular-nums; }
.tip.left { margin-left: -8px; transform: translateX(-100%); }
.tip > * { display: block; }
.tip span { color: var(--text); }
.tip .swatch { display: inline-block; width: 12px; height: 3px; margin-right: 6px; vertical-align: middle; background: var(--c); }

.status { display: flex; flex-wrap: wrap; gap: 4px 18px; align-items: baseline; margin: 14px 0 8px; font-variant-numeric: tabular-nums; }
.state { font-weight: 650; }
.dot { display: inline-block; width: 10px; height: 10px; margin-right: 8px; border-radius: 50%; background: var(--soft); }
.status.running .dot { background: var(--right); animation: breathe 2s ease-in-out infinite; }
.status.finished .dot { background: var(--right); }
.status.stalled .dot, .status.stopped .dot, .status.interrupted .dot { background: var(--wrong); border-radius: 2px; }
.status.waiting .dot { background: none; border: 2px solid var(--soft); }
@keyframes breathe { 50% { opacity: 0.35; } }
@media (prefers-reduced-motion: reduce) { .dot { animation: none !important; } }
progress { appearance: none; display: block; width: 100%; height: 6px; border: 0; border-radius: 3px; overflow: hidden; background: var(--rule); color: var(--main); }
progress::-webkit-progress-bar { background: var(--rule); }
progress::-webkit-progress-value { background: var(--main); }
progress::-moz-progress-bar { background: var(--main); }
.connection { color: var(--wrong); margin: 6px 0 0; }
.connection:empty { display: none; }
.events { list-style: none; margin: 0; padding: 0; }
.events li { border-left: 4px solid var(--wrong); padding: 4px 0 4px 12px; margin: 0 0 8px; overflow-wrap: anywhere; }

.controls { display: none; flex-wrap: wrap; gap: 10px 16px; align-items: center; margin: 0 0 12px; font-size: 14px; color: var(--soft); }
.js .controls { display: flex; }
.js .controls[hidden] { display: none; }
.controls label { display: inline-flex; align-items: center; gap: 6px; }
.controls .grow { flex: 1 1 200px; }
.controls .grow input { flex: 1; min-width: 0; }
.stepper { display: inline-flex; gap: 6px; align-items: center; }
.stepper input { width: 84px; }
.found, .pages { justify-content: space-between; }
.pager { display: inline-flex; gap: 8px; flex-wrap: wrap; }
.controls :is(input, select, button) { font: inherit; color: var(--text); background: var(--page); border: 1px solid var(--edge); border-radius: 7px; padding: 5px 9px; min-height: 34px; }
.controls button { cursor: pointer; background: var(--card); }
.controls button:disabled { cursor: default; opacity: 0.45; }
kbd { font: 12px ui-monospace, monospace; color: var(--soft); border: 1px solid var(--rule); border-radius: 4px; padding: 0 4px; margin-left: 4px; }
:focus-visible { outline: 2px solid var(--main); outline-offset: 2px; }
a { color: var(--main); }
#entries { border: 1px solid var(--rule); border-radius: 12px; overflow: hidden; margin: 14px 0; }
#entries:empty { display: none; }
.entry { margin: 0; border-bottom: 1px solid var(--rule); scroll-margin-top: 8px; }
.entry:last-child { border-bottom: 0; }
.entry > summary { display: grid; grid-template-columns: 64px minmax(0, 1fr) auto; gap: 2px 14px; align-items: baseline; padding: 9px 16px; color: var(--text); list-style: none; }
.entry > summary::-webkit-details-marker { display: none; }
.entry > summary:hover, .entry[open] > summary { background: var(--card); }
.entry > summary:focus-visible { outline-offset: -3px; }
.entry .verdict { font-variant-numeric: tabular-nums; }
.entry .verdict::before { display: inline-block; width: 1.2em; }
.entry .verdict.right::before { content: "✓"; } .entry .verdict.wrong::before { content: "✗"; }
.entry .said { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.entry .meta { font-size: 13px; overflow-wrap: anywhere; }
.entry .body { padding: 0 16px 14px; }
.entry .trajectory { margin: 0 -16px; }
.facts.small { margin: 12px 0 4px; padding: 0; border: 0; gap: 4px 24px; font-size: 14px; }
.calls { margin: 10px 0 0; padding: 12px 0 0 22px; border-top: 1px solid var(--rule); font-size: 14px; }
.calls li { margin: 0 0 8px; }
.calls p { margin: 0; overflow-wrap: anywhere; }
.calls b { color: var(--c); }
.calls details { margin: 2px 0 0; }
.calls pre { white-space: pre-wrap; overflow-wrap: anywhere; max-height: 320px; overflow-y: auto; }
.calls .failed { color: var(--wrong); }
.response { white-space: pre-wrap; overflow-wrap: anywhere; }
.doubts { display: flex; flex-wrap: wrap; gap: 0 6px; }
body:has(#doubt:checked) .doubt-1, .keys .doubt-1 { text-decoration: underline dotted 2px; text-underline-offset: 3px; }
body:has(#doubt:checked) .doubt-2, .keys .doubt-2 { text-decoration: underline solid 2px; text-underline-offset: 3px; }
body:has(#doubt:checked) .doubt-3, .keys .doubt-3 { text-decoration: underline wavy 2px; text-underline-offset: 3px; }

.wide { overflow-x: auto; }
:is(.wide, details, .intervals) + .wide { margin-top: 24px; }
table.data { border-collapse: collapse; width: 100%; font-size: 14.5px; font-variant-numeric: tabular-nums; }
table.data caption { max-width: min(90ch, calc(100vw - 40px)); text-align: left; color: var(--soft); padding: 0 0 8px; }
table.data th, table.data td { padding: 7px 12px 7px 0; text-align: left; border-bottom: 1px solid var(--rule); vertical-align: top; }
table.data thead th { color: var(--soft); font-weight: 600; white-space: nowrap; }
table.data .number { text-align: right; white-space: nowrap; }
table.data .number + :not(.number) { padding-left: 14px; }
table.data td { overflow-wrap: break-word; }
table.setup td { overflow-wrap: anywhere; }
table.setup th { width: 190px; font-weight: 500; color: var(--soft); }
details { margin-top: 18px; }
summary { cursor: pointer; color: var(--main); }
details > .wide, details > pre { margin-top: 12px; }
.remark { border-left: 4px solid var(--wrong); padding-left: 12px; }
@media (max-width: 620px) {
  .chart :is(.tick, .label) { font-size: 14.5px; }
  .chart .end { font-size: 14.5px; }
  body > header { padding-top: 20px; }
  .headline { font-size: 31px; gap: 2px 10px; }
  .card { padding: 18px 16px; }
  .intervals li { grid-template-columns: minmax(0, 1fr) auto; }
  .intervals li { gap: 0 8px; font-size: 14.5px; }
  .intervals .value { grid-column: 2; }
  .intervals .rail { grid-column: 1 / -1; grid-row: 2; }
  .intervals li.scale { margin: 0; }
  table.setup th { width: 120px; }
  .wide > table.data { font-size: 14px; }
  .card .wide > table.data caption { max-width: calc(100vw - 74px); }
  .wide > table.data thead th, .wide > table.data thead .number { white-space: normal; vertical-align: bottom; min-width: 4.2em; }
  .wide > table.data :is(thead th:first-child, tbody th:first-child) { position: sticky; left: 0; z-index: 1; background: var(--page); min-width: 6.5em; max-width: 36vw; overflow-wrap: anywhere; }
  .card .wide > table.data :is(thead th:first-child, tbody th:first-child) { background: var(--card); }
  .entry > summary { grid-template-columns: 54px minmax(0, 1fr); padding: 9px 12px; }
  .entry .meta { grid-column: 2; }
  .entry .body { padding: 0 12px 12px; }
  .entry .trajectory { margin: 0 -12px; }
  .found { align-items: flex-start; }
  .trajectory li { grid-template-columns: 54px minmax(0, 1fr); gap: 10px; padding-right: 12px; }
}
@media print {
  body { font-size: 13px; }
  body > header { padding-top: 0; }
  section { margin-top: 26px; }
  section.card, figure, .answer, tr { break-inside: avoid; }
  h2 { break-after: avoid; }
  .controls, .js .controls, .smoothing, .doubts, .numbers { display: none; }
  .charts, .answers { grid-template-columns: 1fr 1fr; gap: 18px; }
  .answers, .trajectory { font-size: 11px; }
  .wide { overflow: visible; }
  table.data { font-size: 11px; }
  table.data thead th { white-space: normal; }
  pre { white-space: pre-wrap; }
}
`;
