{{- define "flowproof.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "flowproof.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains (include "flowproof.name" .) .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "flowproof.name" .) | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "flowproof.selector" -}}
app.kubernetes.io/name: {{ include "flowproof.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "flowproof.labels" -}}
{{ include "flowproof.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "flowproof.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "flowproof.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "flowproof.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}
{{- end }}

{{- /* The configuration: the values, with the files of this release. Packs of the image that are named stay. */}}
{{- define "flowproof.config" -}}
{{- $config := deepCopy .Values.config }}
{{- if .Values.matrix }}
{{- $matrix := default (list) $config.matrix }}
{{- range $name := keys .Values.matrix | sortAlpha }}
{{- $matrix = append $matrix (printf "/etc/flowproof/%s" $name) }}
{{- end }}
{{- $_ := set $config "matrix" $matrix }}
{{- end }}
{{- if .Values.site }}
{{- $_ := set $config "site" "/etc/flowproof/site.yaml" }}
{{- end }}
{{- toYaml $config }}
{{- end }}
