{{- /* The name of everything: the release's, or as it is set. */}}
{{- define "gossd.name" -}}
{{- default .Release.Name .Values.fullnameOverride -}}
{{- end }}

{{- /* The service at which agents find each other. */}}
{{- define "gossd.gossip" -}}
{{- include "gossd.name" . }}-gossd
{{- end }}

{{- /* What the pods of this release have, and no others. */}}
{{- define "gossd.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "gossd.labels" -}}
{{ include "gossd.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- /* How many pods there are, in all zones. */}}
{{- define "gossd.replicas" -}}
{{- if .Values.zones -}}
{{- $all := 0 }}
{{- range .Values.zones }}{{ $all = add $all (.replicas | default 1) }}{{ end }}
{{- $all -}}
{{- else -}}
{{- .Values.replicas -}}
{{- end -}}
{{- end }}

{{- define "gossd.image" -}}
{{- $image := .Values.gossd.image -}}
{{ $image.repository }}:{{ default .Chart.AppVersion $image.tag }}
{{- end }}

{{- /* gossd's user in its image, and gost's as well; nothing of root, and a file system that cannot be written. */}}
{{- define "gossd.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end }}

{{- /* What `gossd gost-config` prints. */}}
{{- define "gossd.gostConfig" -}}
# For `gost -C`, beside a `gossd run` with the flags that `gossd gost-config` had. Change what you like, but keep
# the plugin sections the same as gossd's flags.

services:
- name: tunnel
  # Tunnel clients connect here.
  addr: ":{{ .Values.gost.tunnelPort }}"
  handler:
    type: tunnel
    metadata:
      # Visitors connect here, and so do the gosts of the other hosts.
      entrypoint: ":{{ .Values.gost.entrypointPort }}"
      ingress: ingress-0
      sd: sd-0
  listener:
    # Or tls, ws and so on: the same as the clients' dialer.
    type: tcp

# Which tunnel a host name belongs to.
ingresses:
- name: ingress-0
  plugin:
    type: http
    addr: "http://127.0.0.1:8000/ingress"

# Where a tunnel is attached.
sds:
- name: sd-0
  plugin:
    type: http
    addr: "http://127.0.0.1:8000/sd"
{{- end }}

{{- /* gost.yml: as it is given, or what `gossd gost-config` prints. */}}
{{- define "gossd.gostYaml" -}}
{{- .Values.gost.config | default (printf "%s\n" (include "gossd.gostConfig" .)) -}}
{{- end }}

{{- /* What a schema cannot say, or not in words. */}}
{{- define "gossd.check" -}}
{{- $names := list }}
{{- range .Values.zones }}
{{- if has .name $names }}{{ fail (printf "zones: there are two of the name %s" .name) }}{{ end }}
{{- $names = append $names .name }}
{{- end }}
{{- if and .Values.zones .Values.zoneFromNode }}
{{- fail "zones and zoneFromNode: the zone of a pod is the one that is given, or its node's, not both" }}
{{- end }}
{{- if and .Values.gost.config .Values.gost.configSecret }}
{{- fail "gost.config and gost.configSecret: gost's configuration is the one or the other" }}
{{- end }}
{{- range .Values.gossd.args }}
{{- if and (or $.Values.zones $.Values.zoneFromNode) (regexMatch "^--(zone|weight)(=|$)" .) }}
{{- fail (printf "gossd.args has %s, which zones and zoneFromNode decide" .) }}
{{- end }}
{{- end }}
{{- end }}
