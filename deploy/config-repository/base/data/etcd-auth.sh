# Enables authentication in etcd, once: user `root` with every right, and user `apisix` for the keys of the gateway.
# Uses etcd's JSON API (https://etcd.io/docs/v3.5/dev-guide/api_grpc_gateway/), because etcd's image has no shell.
# The passwords are hexadecimal. They reach curl over standard input and are no arguments of a process.
set -eu

call() {
  curl --silent --show-error --fail-with-body --max-time 10 --header 'Content-Type: application/json' --data @- \
    "$ETCD_URL/v3/auth/$1"
}

# Creates an object. That it exists already is no error: an earlier run may have been interrupted.
create() {
  answer=$(call "$1") || case "$answer" in
  *'already exists'*) ;;
  *)
    echo "error: etcd refused $1: $answer" >&2
    exit 1
    ;;
  esac
}

if printf '{"name":"root","password":"%s"}' "$ROOT_PASSWORD" | call authenticate >/dev/null 2>&1; then
  echo "authentication is enabled already"
  exit 0
fi

printf '{"name":"root","password":"%s"}' "$ROOT_PASSWORD" | create user/add
printf '{"user":"root","role":"root"}' | call user/grant >/dev/null

printf '{"name":"apisix"}' | create role/add
# The keys from "/apisix" to "/apisiy", as base64. permType 2 is READWRITE.
printf '{"name":"apisix","perm":{"permType":2,"key":"L2FwaXNpeA==","range_end":"L2FwaXNpeQ=="}}' | call role/grant >/dev/null
printf '{"name":"apisix","password":"%s"}' "$APISIX_PASSWORD" | create user/add
printf '{"user":"apisix","role":"apisix"}' | call user/grant >/dev/null

printf '{}' | call enable >/dev/null
echo "authentication is enabled"
