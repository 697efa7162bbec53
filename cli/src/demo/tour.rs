use super::fleet::Demo;

/// What to try while the demo runs.
pub(super) fn print(demo: &Demo) {
    let fleet = &demo.fleet;
    let (https, http) = (fleet.edge_setup.https, fleet.edge_setup.http);
    let (address, port) = (https.ip(), https.port());
    println!(
        "
It stays up. To try, in another terminal:

  alias latchkey={latchkey}
  export CA={root}
  export LATCHKEY_ADMIN=unix:{admin}
  export LATCHKEY_CERTSERVICE={certservice} LATCHKEY_TOKEN_FILE={token}

As a visitor:

  curl --cacert $CA --resolve '*:{port}:{address}' https://shop.localhost:{port}/
  curl --cacert $CA --resolve '*:{port}:{address}' -i https://blog.localhost:{port}/old
  curl -i http://{http}/ -H 'host: xn--bcher-kva.localhost'
  openssl s_client -connect {https} -servername blog.localhost -CAfile $CA </dev/null

As the load balancer that is trusted (without --interface it is refused):

  curl --cacert $CA --resolve '*:{port}:{address}' --interface 127.0.0.2 --haproxy-protocol https://shop.localhost:{port}/

As the operator:

  latchkey status
  latchkey domain add my.localhost; latchkey domain watch my.localhost; latchkey domain ls
  latchkey config dump > my.json       then add my.localhost to the hosts of a site
  latchkey config plan my.json && latchkey config apply my.json
  curl --unix-socket {admin} http://localhost/metrics

Boot files, logs and data: {folder}
Ctrl-C stops everything and removes that folder.",
        latchkey = std::env::current_exe().unwrap_or_else(|_| "latchkey".into()).display(),
        root = fleet.certservice_setup.internal_root().display(),
        admin = fleet.edge_setup.admin_socket().display(),
        certservice = fleet.certservice_setup.url(),
        token = fleet.certservice_setup.operator_token_file().display(),
        folder = fleet.folder.path().display(),
    );
}
