#!/bin/sh
# Makes what `docker compose up` needs and no default may stand for: passwords, keys, certificates.
#
#   deploy/compose/make-secrets.sh [FOLDER [NAME ...]]
#
# FOLDER is ./secrets unless told otherwise; NAMEs are those by which devices reach the broker. What is there stays.
# The folder is closed to other users. The files in it are not: containers read them as users of their own.
set -eu

folder=${1:-secrets}
[ $# -gt 0 ] && shift
umask 077
mkdir -p "$folder/authority"
cd "$folder"
echo '*' > .gitignore

# $1: a file, left alone if it is there. Its content comes from stdin, and gets there whole or not at all.
keep() {
    if [ -e "$1" ]; then
        cat > /dev/null
    else
        cat > "$1.partial"
        chmod 444 "$1.partial"
        mv "$1.partial" "$1"
        echo "made $folder/$1"
    fi
}
random() { openssl rand -hex "$1"; }
database_url() { echo "postgresql://fleetwatt_$1:$(cat "$1_password")@database:5432/fleetwatt"; }
api_key() { echo "fw_$(random 6)_$(openssl rand -base64 32 | tr '+/' '-_' | tr -d '=\n')"; }

for name in postgres owner service bi grafana; do
    random 24 | keep "${name}_password"
done
# With which Grafana encrypts what it stores.
random 32 | keep grafana_secret_key
database_url owner | keep owner_database_url
database_url service | keep service_database_url
for scope in admin read; do
    api_key | keep "${scope}_key"
done
# Who knows the name of a shared subscription may join it.
random 16 | keep mqtt_share

# $1: a name. An authority of one's own.
authority() {
    [ -e "$1.crt" ] && return
    openssl req -x509 -newkey rsa:3072 -nodes -days 3650 -subj "/CN=fleetwatt $1" \
        -addext "keyUsage=critical,keyCertSign,cRLSign" -keyout "authority/$1.key" -out "authority/$1.crt" 2> /dev/null
    keep "$1.crt" < "authority/$1.crt"
}
# $1: a name. $2: its authority. $3: the certificate's common name. $4: its extensions.
certificate() {
    [ -e "$1.crt" ] && return
    if [ ! -e "authority/$2.key" ]; then
        echo "$folder/authority/$2.key is not there, and $1.crt cannot be signed without it: bring it back" >&2
        exit 1
    fi
    openssl req -newkey rsa:3072 -nodes -subj "/CN=$3" -keyout "authority/$1.key" -out "authority/$1.csr" 2> /dev/null
    printf '%b' "$4" > "authority/$1.ext"
    openssl x509 -req -in "authority/$1.csr" -CA "authority/$2.crt" -CAkey "authority/$2.key" -CAcreateserial -days 365 \
        -extfile "authority/$1.ext" -out "authority/$1.crt" 2> /dev/null
    # The key first: a certificate that is there says that both are.
    rm -f "$1.key"
    keep "$1.key" < "authority/$1.key"
    keep "$1.crt" < "authority/$1.crt"
}
names=DNS:broker,DNS:localhost
for name in "$@"; do
    names="$names,DNS:$name"
done
authority broker-ca
authority services-ca
certificate broker broker-ca "${1:-broker}" "subjectAltName=$names\nextendedKeyUsage=serverAuth\n"
certificate worker services-ca fleetwatt 'extendedKeyUsage=clientAuth\n'
