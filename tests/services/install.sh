#!/bin/sh
# What `make test-services` needs besides the package index: Java and Maven for Apache Kafka and Debezium, Debian's own Redis, and RabbitMQ.
# Installs what is missing with apt; on another system, install them by hand and run this again.
set -eu

missing=""
command -v java >/dev/null || missing="$missing default-jre-headless"
command -v mvn >/dev/null || missing="$missing maven"
command -v openssl >/dev/null || missing="$missing openssl"
command -v redis-server >/dev/null || missing="$missing redis-server"
[ -x /usr/lib/rabbitmq/bin/rabbitmq-server ] || missing="$missing rabbitmq-server"
if [ -n "$missing" ]; then
    if ! command -v apt-get >/dev/null; then
        echo "needed and not found:$missing (as Debian calls them); install them and run this again" >&2
        exit 1
    fi
    sudo=""
    [ "$(id -u)" = 0 ] || sudo=sudo
    export DEBIAN_FRONTEND=noninteractive
    $sudo apt-get update -qq
    # shellcheck disable=SC2086
    $sudo apt-get install -y -qq --no-install-recommends $missing
fi
