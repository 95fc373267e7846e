{{- define "boldgate.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "boldgate.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else if contains (include "boldgate.name" .) .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "boldgate.name" .) | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "boldgate.selectorLabels" -}}
app.kubernetes.io/name: {{ include "boldgate.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "boldgate.labels" -}}
{{ include "boldgate.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "boldgate.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "boldgate.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "boldgate.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* The scheme of the admin listener, in the form of a probe's. */}}
{{- define "boldgate.probeScheme" -}}
{{- if .Values.admin.tlsSecret }}, scheme: HTTPS{{ end -}}
{{- end -}}

{{/* The configuration that the chart makes of its values, with `config` merged over it. */}}
{{- define "boldgate.config" -}}
{{- $listener := dict "address" "0.0.0.0:8080" "callers" "required" -}}
{{- if .Values.tls.existingSecret -}}
{{- $_ := set $listener "tls" (dict "certificate_file" "/run/secrets/boldgate-tls/tls.crt" "key_file" "/run/secrets/boldgate-tls/tls.key") -}}
{{- end -}}
{{- $admin := dict "address" "0.0.0.0:9090" -}}
{{- range list "status" "actions" -}}
{{- if index $.Values.admin . -}}{{- $_ := set $admin . true -}}{{- end -}}
{{- end -}}
{{- if .Values.admin.existingSecret -}}
{{- $_ := set $admin "token_file" "/run/secrets/boldgate-admin/token" -}}
{{- end -}}
{{- if .Values.admin.tlsSecret -}}
{{- $_ := set $admin "tls" (dict "certificate_file" "/run/secrets/boldgate-admin-tls/tls.crt" "key_file" "/run/secrets/boldgate-admin-tls/tls.key") -}}
{{- end -}}
{{- $config := dict
      "listeners" (list $listener)
      "admin" $admin
      "limits" (dict "lame_duck" .Values.lameDuck) -}}
{{- $given := .Values.config.tenants | default dict -}}
{{- if not $given -}}
{{- $credential := dict "grant" .Values.boldBI.grant "username" (required "boldBI.username: the user of Bold BI as whom requests act" .Values.boldBI.username) "user_source" .Values.boldBI.userSource -}}
{{- with .Values.boldBI.hold -}}
{{- if ne $.Values.boldBI.grant "embed_secret" -}}
{{- fail "boldBI.hold: only with the grant embed_secret, because tries with a wrong password may lock the user out" -}}
{{- end -}}
{{- $_ := set $credential "hold" . -}}
{{- end -}}
{{- if eq .Values.boldBI.grant "password" -}}
{{- $_ := set $credential "password" (dict "file" "/run/secrets/boldgate/password") -}}
{{- else -}}
{{- $_ := set $credential "embed_secret" (dict "file" "/run/secrets/boldgate/embed-secret") -}}
{{- end -}}
{{- $site := required "boldBI.site: what follows /site/ in the URL of the site" .Values.boldBI.site -}}
{{- $url := required "boldBI.url: Bold BI up to /bi" .Values.boldBI.url -}}
{{- $_ := set $config "servers" (dict "main" (dict "url" $url)) -}}
{{- $tenant := dict "server" "main" "site" $site "credential" $credential -}}
{{- $permission := dict "tenant" $site "routes" .Values.routes -}}
{{- if has "embed" .Values.routes -}}
{{- if not .Values.embed.fixedSubject -}}
{{- fail "routes has embed: set embed.fixedSubject to true if pages with the API key may act as boldBI.username, or write callers with jwt in config" -}}
{{- end -}}
{{- if not .Values.embed.origins -}}{{- fail "embed.origins: the origins of the pages that embed" -}}{{- end -}}
{{- $_ := set $permission "fixed_subject" true -}}
{{- $_ := set $tenant "embed" .Values.embed.settings -}}
{{- $_ := set $tenant "cors" (dict "origins" .Values.embed.origins) -}}
{{- end -}}
{{- $_ := set $config "tenants" (dict $site $tenant) -}}
{{- if not .Values.config.callers -}}
{{- $_ := set $config "callers" (dict "default" (dict "api_key" (dict "key" (dict "file" "/run/secrets/boldgate/api-key")) "may" (list $permission))) -}}
{{- end -}}
{{- end -}}
{{- mergeOverwrite $config (deepCopy .Values.config) | toYaml -}}
{{- end -}}
