#!/usr/bin/env bash
# Pebble's DNS server as Debian packages it, with the options that today's release has: -dnsserver was -dns01, and there
# was no -doh.
arguments=()
while [ $# -gt 0 ]; do
  case $1 in
    -dnsserver) arguments+=(-dns01) ;;
    -doh) shift ;;
    *) arguments+=("$1") ;;
  esac
  shift
done
exec /usr/bin/pebble-challtestsrv "${arguments[@]}"
