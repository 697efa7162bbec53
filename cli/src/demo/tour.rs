use super::fleet::Demo;

/// What to try while the demo runs.
pub(super) fn print(demo: &Demo) {
    let (https, http) = (demo.fleet.edge_setup.https, demo.fleet.edge_setup.http);
    let root = demo.fleet.certservice_setup.internal_root();
    let (root, folder) = (root.display(), demo.fleet.folder.path().display());
    let port = https.port();
    let curl = |host: &str| format!("curl --cacert {root} --resolve {host}:{port}:{}", https.ip());
    println!(
        "\nIt stays up. To try, in another terminal:

  {shop} https://shop.localhost:{port}/
  {buecher} https://xn--bcher-kva.localhost:{port}/
  {shop} -si https://shop.localhost:{port}/old
  curl -i http://{http}/ -H 'host: blog.localhost'
  {shop} --interface 127.0.0.2 --haproxy-protocol https://shop.localhost:{port}/
      (as the trusted load balancer; without --interface it is refused)
  openssl s_client -connect {https} -servername blog.localhost -CAfile {root} </dev/null

As its operator:

  export LATCHKEY_ADMIN=unix:{admin}
  export LATCHKEY_CERTSERVICE={certservice} LATCHKEY_TOKEN_FILE={token}
  {latchkey} status
  {latchkey} domain add my.localhost && {latchkey} domain ls
  {latchkey} config get > my.json     (edit it: add my.localhost to the hosts of a site)
  {latchkey} config check my.json && {latchkey} config apply my.json
  curl --unix-socket {admin} http://localhost/metrics

Boot files, logs and data: {folder}
Ctrl-C stops everything and removes that folder.",
        shop = curl("shop.localhost"),
        buecher = curl("xn--bcher-kva.localhost"),
        admin = demo.fleet.edge_setup.admin_socket().display(),
        certservice = demo.fleet.certservice_setup.url(),
        token = demo.fleet.certservice_setup.operator_token_file().display(),
        latchkey = std::env::current_exe().unwrap_or_else(|_| "latchkey".into()).display(),
    );
}
