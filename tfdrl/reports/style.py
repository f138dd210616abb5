"""The page's style sheet: one column on a phone, two on a screen, black on white on paper."""

CSS = """
:root { color-scheme: light; --ink: #1b1f24; --soft: #57606a; --rule: #d0d7de; --hot: #ffe0b8; }
* { box-sizing: border-box; }
body { margin: 0; font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: #fff; }
main { max-width: 1180px; margin: 0 auto; padding: 12px 16px 40px; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0.6em 0; overflow-wrap: anywhere; }
h2 { font-size: 1.3rem; border-bottom: 1px solid var(--rule); padding-bottom: 4px; }
h3 { font-size: 1.1rem; margin: 1.6em 0 0.5em; }
.remark { background: #fff8c5; border-left: 4px solid #bf8700; padding: 8px 12px; }
.findings li { margin: 0.3em 0; }
.note { color: var(--soft); font-size: 0.9rem; }
.grid { display: grid; gap: 24px; grid-template-columns: repeat(auto-fit, minmax(340px, 1fr)); }
figure { margin: 0; max-width: 560px; break-inside: avoid; }
figcaption { font-weight: 600; margin-bottom: 4px; }
svg.figure, svg.chart { display: block; width: 100%; height: auto; }
svg text { font-family: system-ui, sans-serif; fill: var(--ink); }
svg .title { font-size: 14px; font-weight: 600; text-anchor: middle; }
svg .fact { font-size: 12px; text-anchor: middle; }
svg .flow { font-size: 12px; fill: #1f4e79; }
svg .tick, svg .axis { font-size: 12px; fill: var(--soft); }
svg .box { fill: #f6f8fa; stroke: #57606a; }
svg .bottleneck { fill: var(--hot); stroke: #bc4c00; stroke-width: 2.5; }
svg .link { stroke: #57606a; stroke-width: 1.5; }
svg .paper { fill: #fff; }
svg .grid { stroke: #eaeef2; }
svg .target { stroke: #57606a; stroke-dasharray: 5 4; }
.legend { margin: 2px 0 0; font-size: 0.85rem; }
.key { display: inline-block; margin-right: 14px; white-space: nowrap; }
.key svg { width: 28px; height: 8px; margin-right: 5px; vertical-align: middle; }
table { border-collapse: collapse; font-size: 0.9rem; width: 100%; }
th, td { padding: 5px 8px; border-bottom: 1px solid var(--rule); text-align: right; }
th:first-child { text-align: left; }
thead th { vertical-align: bottom; font-weight: 600; }
details { margin: 0.6em 0; }
summary { cursor: pointer; font-weight: 600; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 12px; font-size: 0.9rem; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
pre { background: #f6f8fa; padding: 10px; font-size: 0.85rem; white-space: pre-wrap;
  overflow-wrap: anywhere; }
@media (max-width: 900px) {
  table.wide thead { display: none; }
  table.wide tr { display: block; border-bottom: 2px solid var(--rule); padding: 6px 0; }
  table.wide th { display: block; border: 0; }
  table.wide td { display: flex; justify-content: space-between; gap: 12px; border: 0;
    padding: 2px 8px; }
  table.wide td::before { content: attr(data-head); color: var(--soft); text-align: left; }
}
@media print {
  body { font-size: 10pt; }
  main { max-width: none; padding: 0; }
  .grid { grid-template-columns: 1fr 1fr; }
  svg .box, svg .bottleneck { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  h3 { break-after: avoid; }
}
"""
