#!/bin/sh
# Makes what --tls_certificate, --tls_key, --tls_ca and --token_file of a run want: an authority, one
# certificate for all of the run's processes, and a token.
#
#   docker/make_certificates.sh DIRECTORY HOST...
#   docker/make_certificates.sh seed-tls seed-learner-0.seed
#   kubectl create secret generic seed-tls --from-file=seed-tls/
#
# HOST: each name by which a learner or coordinator is reached, as in --learner=HOST:PORT. The
# authority's key is not kept: nobody can sign more certificates for this run.
set -eu
[ $# -ge 2 ] || { sed -n 's/^# \{0,1\}//p' "$0" | sed 1d >&2; exit 2; }
directory=$1
shift
[ ! -e "$directory" ] || { echo "$directory is there already; choose another directory" >&2; exit 2; }

umask 077
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
new=$work/new  # becomes the directory when all is there
mkdir "$new"
say() { "$@" > "$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }; }

names="DNS:localhost,IP:127.0.0.1"
for host in "$@"; do
  case $host in
    *:*) names="$names,IP:$host" ;;
    *[!0-9.]*) names="$names,DNS:$host" ;;
    *) names="$names,IP:$host" ;;
  esac
done

say openssl req -x509 -newkey rsa:3072 -nodes -days 365 -subj "/CN=tfdrl run" \
  -keyout "$work/ca.key" -out "$new/ca.crt"
say openssl req -newkey rsa:3072 -nodes -subj "/CN=tfdrl" \
  -keyout "$new/tls.key" -out "$work/tls.csr"
printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth,clientAuth\n' "$names" > "$work/extensions"
say openssl x509 -req -in "$work/tls.csr" -CA "$new/ca.crt" -CAkey "$work/ca.key" \
  -CAcreateserial -CAserial "$work/serial" -days 365 -extfile "$work/extensions" -out "$new/tls.crt"
openssl rand -hex 32 > "$new/token"
mkdir -p "$(dirname "$directory")"
mv "$new" "$directory"
echo "$directory: ca.crt tls.crt tls.key token, for $names"
