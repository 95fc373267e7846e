"""Compares the dashboard with the types that Grafana publishes for it: keys, values and options of panels.

    types.py TOOLS FOLDER

TOOLS has `node_modules` with @grafana/schema and TypeScript; what tsc reads is written into FOLDER.
"""

import pathlib
import subprocess
import sys

PANELS = "@grafana/schema/dist/esm/raw/composable"
# Grafana has defaults for options and fields that are not given. In JSON the value of an enum is a text.
TYPES = f"""import type {{ Dashboard, Panel, RowPanel }} from '@grafana/schema';
import type * as stat from '{PANELS}/stat/panelcfg/x/StatPanelCfg_types.gen';
import type * as timeseries from '{PANELS}/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen';

type Json<T> = T extends string ? `${{T}}` : T extends object ? {{ [K in keyof T]: Json<T[K]> }} : T;
type Target = {{
  refId: string; expr: string; legendFormat: string; datasource: {{ type: 'prometheus'; uid: string }};
  format?: 'time_series' | 'table' | 'heatmap'; instant?: boolean; range?: boolean; interval?: string;
}};
type Shown<Type, Options, Fields> = Omit<Panel<{{}}, Partial<Fields>>, 'type' | 'options' | 'targets'> & {{
  type: Type; options: Partial<Options>; targets: Target[];
}};
type Stat = Shown<'stat', stat.Options, {{}}>;
type TimeSeries = Shown<'timeseries', timeseries.Options, timeseries.FieldConfig>;
type Row = Omit<RowPanel, 'panels'> & {{ type: 'row'; panels: [] }};
export type Ours = Json<Omit<Dashboard, 'panels'>> & {{ panels: Json<Stat | TimeSeries | Row>[] }};
"""


# Changes that the types must not let pass: of a key, an enum, an option, a mode, a panel and a query.
WRONG = {
    "graphTooltip": "graphTooltips",
    "absolute": "absolutes",
    "reduceOptions": "reducedOptions",
    "multi": "many",
    "timeseries": "graph",
    "legendFormat": "legend",
}


def main():
    tools, folder = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    modules = folder / "node_modules"
    modules.unlink(missing_ok=True)
    modules.symlink_to(tools / "node_modules")
    path = pathlib.Path(__file__).with_name("boldgate-dashboard.json")
    texts = {"dashboard": path.read_text()}
    for old, new in WRONG.items():
        assert f'"{old}"' in texts["dashboard"], old
        texts[f"wrong-{new}"] = texts["dashboard"].replace(f'"{old}"', f'"{new}"')
    for name, text in texts.items():
        (folder / f"{name}.ts").write_text(f"{TYPES}export const dashboard: Ours = {text};\n")
    options = "--noEmit --strict --skipLibCheck --moduleResolution bundler --module esnext --target es2022"
    tsc = [str(tools / "node_modules/.bin/tsc"), *options.split(), "--pretty", "false"]
    said = subprocess.run(
        [*tsc, *(f"{name}.ts" for name in texts)], cwd=folder, stdout=subprocess.PIPE, text=True
    ).stdout.splitlines()
    faults = [line for line in said if not line.startswith(("wrong-", " "))]
    if faults:
        sys.exit("\n".join([f"Grafana's types do not fit {path.name}:", *faults]))
    for name in texts.keys() - {"dashboard"}:
        assert any(line.startswith(f"{name}.ts(") for line in said), f"the types let {name} pass"
    print("dashboard: keys, values and options are of the types that Grafana publishes")


main()
