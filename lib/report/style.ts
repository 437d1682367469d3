/** The style sheet of reports and of the live page: light and dark by what the reader's system prefers. */
export const STYLE = `
:root { color-scheme: light dark; --bg: #ffffff; --card: #f6f7f9; --fg: #1c2430; --dim: #5d6876; --line: #d9dee5; --good: #1a7f37; --bad: #c5221f; --warn: #9a6700;
  --warnbg: #fff8e1; --cell: 9, 80, 180; --s1: #2f6fb0; --s2: #d1495b; --s3: #3a8f3f; --s4: #8e5ea2; --s5: #b07b10; --s6: #1f8f86; --s7: #8a5a44; --s8: #6f7782; }
@media (prefers-color-scheme: dark) { :root { --bg: #12161c; --card: #1b2129; --fg: #e3e8ee; --dim: #98a4b3; --line: #333c48; --good: #4fc26b; --bad: #ff7b72;
  --warn: #e3b341; --warnbg: #2b2510; --cell: 90, 160, 255; --s1: #6cb0f5; --s2: #ff8a8a; --s3: #74cf78; --s4: #c99be0; --s5: #e6b84f; --s6: #55cfc4; --s7: #cf9a80; --s8: #a7b0bb; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--bg); color: var(--fg); font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
header, main, footer { max-width: 1180px; margin: 0 auto; padding: 0 20px; }
header { padding-top: 24px; } footer { padding: 32px 20px; color: var(--dim); font-size: 13px; }
h1 { font-size: 26px; margin: 0 0 4px; overflow-wrap: anywhere; } h2 { font-size: 19px; margin: 40px 0 12px; padding-top: 12px; border-top: 1px solid var(--line); }
nav { display: flex; flex-wrap: wrap; gap: 2px 18px; margin: 16px 0 0; font-size: 14px; } nav a { color: var(--s1); text-decoration: none; } nav a:hover { text-decoration: underline; } .live ~ main h2 { scroll-margin-top: 96px; }
h3 { font-size: 15px; margin: 20px 0 8px; } p { margin: 6px 0 12px; } .dim { color: var(--dim); } .num { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
bdi { overflow-wrap: anywhere; }
.tiles { display: flex; flex-wrap: wrap; gap: 12px; margin: 16px 0; } .tile { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 10px 16px; min-width: 130px; }
.tile b { display: block; font-size: 21px; font-variant-numeric: tabular-nums; } .tile span { color: var(--dim); font-size: 13px; }
.charts { display: flex; flex-wrap: wrap; gap: 8px 24px; } .charts svg { max-width: 100%; height: auto; }
.warning { background: var(--warnbg); border-left: 4px solid var(--warn); padding: 8px 14px; margin: 10px 0; border-radius: 4px; overflow-wrap: anywhere; }
.warning code { color: var(--warn); font-weight: 600; } table { border-collapse: collapse; font-size: 14px; max-width: 100%; }
th { text-align: left; font-weight: 600; color: var(--dim); } th.num { text-align: right; } th, td { padding: 3px 12px 3px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
.scroll { overflow-x: auto; } .scroll td:first-child { min-width: 6em; } td.line { white-space: nowrap; } td.dim { overflow-wrap: anywhere; } .matrix td, .matrix th { padding: 2px 4px; border: 1px solid var(--bg); text-align: center; font-size: 12px; } .matrix th { max-width: 110px; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.matrix th.row { text-align: right; } .matrix td { min-width: 32px; font-variant-numeric: tabular-nums; } .matrix td.own { font-weight: 700; }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(160px, 1fr)); gap: 14px; } .card { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 10px; font-size: 13px; min-width: 0; }
.card img, .near img { width: 96px; max-width: 100%; aspect-ratio: 1; image-rendering: auto; border-radius: 4px; display: block; } .card .path { color: var(--dim); font-size: 12px; overflow-wrap: anywhere; margin-top: 6px; max-height: 9em; overflow: hidden; }
.bar { position: relative; margin: 3px 0; padding: 1px 6px; background: var(--line); border-radius: 3px; overflow: hidden; display: flex; justify-content: space-between; gap: 8px; }
.bar i { position: absolute; inset: 0 auto 0 0; background: var(--s8); opacity: .45; } .bar.right i { background: var(--good); } .bar.wrong i { background: var(--bad); } .bar bdi, .bar span { position: relative; white-space: nowrap; overflow: hidden; text-overflow: ellipsis; } .bar span { flex: none; } .card > .right, .card > .wrong { max-height: 4.5em; overflow: hidden; overflow-wrap: anywhere; }
.right { color: var(--good); } .wrong { color: var(--bad); } .bar.right, .bar.wrong { color: inherit; } .near { display: grid; grid-template-columns: minmax(0, 96px) 4px repeat(6, minmax(0, 96px)); gap: 8px; margin: 0 0 14px; } .near figure { margin: 0; font-size: 12px; } .near figure:nth-child(2) { grid-column: 3; }
.near figcaption > div { overflow-wrap: anywhere; max-height: 3em; overflow: hidden; } .filters img { max-width: 100%; background: #fff; } .grown { display: flex; flex-wrap: wrap; gap: 16px; } .grown figure { margin: 0; width: 340px; max-width: 100%; } .grown img { width: 100%; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 12px; overflow: auto; font-size: 12.5px; max-height: 420px; } details { margin: 10px 0; } summary { cursor: pointer; color: var(--s1); }
.live { position: sticky; top: 0; z-index: 2; background: var(--bg); border-bottom: 1px solid var(--line); padding: 10px 0; } .live header { padding-top: 0; } .live button { font: inherit; margin-right: 8px; padding: 4px 14px; border-radius: 6px; border: 1px solid var(--line); background: var(--card); color: var(--fg); cursor: pointer; }
.live button:disabled { opacity: .5; cursor: default; } .progress { height: 6px; background: var(--line); border-radius: 3px; margin-top: 8px; overflow: hidden; } .progress i { display: block; height: 100%; background: var(--s1); width: 0; }
@media (max-width: 600px) { .near { gap: 5px; } .near figure { font-size: 10px; } .live button { padding: 4px 9px; } #status { display: block; margin-top: 6px; } }
`;
