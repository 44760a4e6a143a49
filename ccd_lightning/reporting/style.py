"""The look of the report page: system fonts, one column on a phone, several on a screen, light or dark by choice."""

STYLE = """
:root{color-scheme:light dark;--ground:#fff;--card:#f6f8fa;--ink:#1b2733;--soft:#5b6875;--line:#d5dce3;--accent:#3d7fb8;
--head:#5b68751a;--shade:#1b273340;--teacher:#3d7fb8;--student:#d9663b;--distilled:#2f9271}
@media (prefers-color-scheme:dark){:root{--ground:#12171d;--card:#1a2129;--ink:#e4e9ee;--soft:#9aa7b4;--line:#323d48;
--head:#9aa7b41f;--shade:#000000b0}}
*{box-sizing:border-box}
body{margin:0;
background:var(--ground);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1240px;margin:0 auto;padding:24px 16px 64px}
h1{font-size:1.6rem;line-height:1.2;margin:0 0 4px}
h2{font-size:1.2rem;margin:44px 0 4px}
p{margin:4px 0 12px;max-width:75ch}
p,li,dt,dd{overflow-wrap:anywhere}
.soft{color:var(--soft);font-size:.9rem}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px;margin:20px 0 0}
.tile{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:12px 14px}
.tile b{display:block;font-size:1.3rem;line-height:1.3;white-space:nowrap;font-variant-numeric:tabular-nums}
.tile.teacher{border-top:3px solid var(--teacher)}
.tile.student{border-top:3px solid var(--student)}
.tile.distilled{border-top:3px solid var(--distilled)}
.figures{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,320px),1fr));gap:16px;margin:12px 0}
.figures.two{grid-template-columns:repeat(auto-fill,minmax(min(100%,420px),1fr))}
figure{margin:0;background:var(--card);border:1px solid var(--line);border-radius:10px;padding:10px}
figure svg{display:block;width:100%;height:auto;max-width:520px;margin:0 auto}
svg text{font-family:system-ui,-apple-system,"Segoe UI",Roboto,sans-serif!important}
.scroll{overflow-x:auto;margin:12px 0;border:1px solid var(--line);border-radius:10px;
background:linear-gradient(90deg,transparent,var(--ground) 70%) right/40px 100% no-repeat local,
linear-gradient(90deg,transparent,var(--shade)) right/16px 100% no-repeat scroll}
table{border-collapse:separate;border-spacing:0;width:100%;font-variant-numeric:tabular-nums;font-size:.92rem}
.scroll+p{margin:-4px 4px 20px}
th,td{padding:6px 12px;text-align:right;white-space:nowrap;border-bottom:1px solid var(--line)}
tbody tr:last-child>*{border-bottom:0}
thead th{background:var(--head);font-weight:600;vertical-align:bottom;white-space:normal}
thead th:first-child{position:sticky;left:0;background:linear-gradient(var(--head),var(--head)),var(--ground)}
th:first-child,td:first-child{text-align:left}
tbody th{font-weight:500;position:sticky;left:0;background:var(--ground)}
tr.total th,tr.total td{font-weight:600}
details{margin:12px 0;border:1px solid var(--line);border-radius:10px;padding:8px 14px}
summary{cursor:pointer}
pre{overflow-x:auto;font:13px/1.45 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;margin:8px 0}
dl{display:grid;grid-template-columns:fit-content(40%) 1fr;gap:4px 16px;margin:12px 0;max-width:80ch}
dt{font-weight:600}
dd{margin:0}
ul{margin:4px 0 12px;padding-left:1.2em;max-width:75ch}
@media (max-width:600px){table{font-size:.84rem}th,td{padding:5px 6px}
h2{margin-top:34px}dl{grid-template-columns:1fr}dd{margin-bottom:8px}}
@media print{.scroll{overflow:visible}}
""".strip()
