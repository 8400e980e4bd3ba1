{{- define "headhunt.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 52 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "headhunt.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "headhunt.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{ include "headhunt.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- /* The settings file: `config` with what the other values say. */}}
{{- define "headhunt.config" -}}
{{- $own := dict
  "server" (dict "listen" "0.0.0.0:50051" "metrics_listen" "0.0.0.0:9464")
  "model" (dict "path" .Values.model.path "device" (ternary "cuda:0" "cpu" (gt (int .Values.gpus) 0)))
  "feedback" (dict "dir" "/data/feedback")
}}
{{- if .Values.profiles.existingConfigMap }}
{{- $_ := set $own "profiles" (dict "dir" "/profiles" "active" .Values.profiles.active) }}
{{- end }}
{{- if .Values.admin.enabled }}
{{- $_ := set $own "admin" (dict "dir" "/data/admin") }}
{{- /* The volume is the hub's, the feedback's and the profiles' too, which must not find it full. */}}
{{- $number := regexFind "^[0-9]+" .Values.persistence.size }}
{{- $unit := get (dict "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 "K" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000) (regexReplaceAll "^[0-9]+" .Values.persistence.size "") }}
{{- if and .Values.persistence.enabled $number $unit }}
{{- $_ := set $own.admin "quota_bytes" (div (mul (int64 $number) (int64 $unit)) 2) }}
{{- end }}
{{- if not .Values.profiles.existingConfigMap }}
{{- $_ := set $own "profiles" (dict "dir" "/data/profiles") }}
{{- end }}
{{- end }}
{{- if .Values.tls.existingSecret }}
{{- $_ := set $own.server "tls_cert_file" "/etc/headhunt/tls/tls.crt" }}
{{- $_ := set $own.server "tls_key_file" "/etc/headhunt/tls/tls.key" }}
{{- if .Values.tls.mutual }}
{{- $_ := set $own.server "tls_client_ca_file" "/etc/headhunt/tls/ca.crt" }}
{{- end }}
{{- end }}
{{- if .Values.auth.existingSecret }}
{{- $_ := set $own.server "token_file" "/etc/headhunt/auth/tokens.toml" }}
{{- end }}
{{- if .Values.insecure }}
{{- $_ := set $own.server "insecure" true }}
{{- end }}
{{- mergeOverwrite $own (deepCopy .Values.config) | toToml }}
{{- end }}

{{- /* What keeps two owners from one directory, and an unsafe listener from being deployed by mistake. */}}
{{- define "headhunt.check" -}}
{{- if and .Values.autoscaling.enabled .Values.keda.enabled }}
{{- fail "autoscaling and keda: choose one" }}
{{- end }}
{{- if and .Values.admin.enabled (or (gt (int .Values.replicaCount) 1) .Values.autoscaling.enabled .Values.keda.enabled) }}
{{- fail "admin.enabled: its directory has one owner; set replicaCount 1 and no autoscaling (a second release can serve with the profiles that this one makes)" }}
{{- end }}
{{- if and .Values.admin.enabled .Values.profiles.existingConfigMap }}
{{- fail "admin.enabled: its jobs write profiles, and profiles.existingConfigMap is read-only; leave that empty, profiles are kept at /data/profiles" }}
{{- end }}
{{- if and .Values.serviceMonitor.enabled .Values.tls.mutual (not .Values.auth.existingSecret) (not .Values.serviceMonitor.existingClientCertSecret) }}
{{- fail "serviceMonitor.enabled with tls.mutual and without auth: /metrics asks for a certificate; set serviceMonitor.existingClientCertSecret" }}
{{- end }}
{{- if and .Values.gateway.enabled .Values.tls.mutual }}
{{- fail "gateway.enabled with tls.mutual: the gateway shows the service no certificate; use auth.existingSecret" }}
{{- end }}
{{- range tuple "listen" "metrics_listen" }}
{{- if dig "server" . "" $.Values.config }}
{{- fail (printf "config.server.%s: the ports of the container are fixed; service.port and service.metricsPort are those of the service" .) }}
{{- end }}
{{- end }}
{{- if and .Values.tls.mutual (not .Values.tls.existingSecret) }}
{{- fail "tls.mutual needs tls.existingSecret" }}
{{- end }}
{{- if not (or .Values.insecure (and .Values.tls.existingSecret (or .Values.auth.existingSecret .Values.tls.mutual))) }}
{{- fail "the service listens beyond loopback: set tls.existingSecret and auth.existingSecret (or tls.mutual), or insecure=true behind something that has both" }}
{{- end }}
{{- if and .Values.gateway.enabled (not .Values.gateway.parentRefs) }}
{{- fail "gateway.enabled needs gateway.parentRefs" }}
{{- end }}
{{- end }}

{{- define "headhunt.probe" -}}
{{- if .Values.tls.mutual -}}
httpGet:
  port: metrics
  path: /ready
  scheme: HTTPS
{{- else if .Values.tls.existingSecret -}}
exec:
  command: ["/usr/bin/headhunt", "health", "--addr", "https://127.0.0.1:50051", "--any-certificate", "--timeout-s", "{{ max 1 (sub (int .Values.probes.timeoutSeconds) 1) }}"]
{{- else -}}
grpc:
  port: 50051
{{- end }}
timeoutSeconds: {{ .Values.probes.timeoutSeconds }}
periodSeconds: {{ .Values.probes.periodSeconds }}
{{- end }}
