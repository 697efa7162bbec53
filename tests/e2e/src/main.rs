//! End-to-end tests: real processes, real connections, one binary. Each test starts a world of its own on free ports and
//! ends it. `cargo build --workspace --bins` and `plugins/build.sh` come first; `make test` does both.

#[cfg(test)]
mod alerts;
#[cfg(test)]
mod authors;
#[cfg(test)]
mod bad_input;
#[cfg(test)]
mod bindings;
#[cfg(test)]
mod bodies;
#[cfg(test)]
mod callouts;
#[cfg(test)]
mod challenges;
#[cfg(test)]
mod changes;
#[cfg(test)]
mod clients;
#[cfg(test)]
mod command;
#[cfg(test)]
mod compiled;
#[cfg(test)]
mod edge_api;
#[cfg(test)]
mod edge_keys;
#[cfg(test)]
mod first_visits;
#[cfg(test)]
mod full_path;
#[cfg(test)]
mod exit_codes;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod hsts;
#[cfg(test)]
mod map_rules;
#[cfg(test)]
mod mtls;
#[cfg(test)]
mod outages;
#[cfg(test)]
mod policies;
#[cfg(test)]
mod protocols;
#[cfg(test)]
mod proxy_protocol;
#[cfg(test)]
mod readme;
#[cfg(test)]
mod rsa;
#[cfg(test)]
mod redis_tls;
#[cfg(test)]
mod restores;
#[cfg(test)]
mod resumption;
#[cfg(test)]
mod s_client;
#[cfg(test)]
mod revisions;
#[cfg(test)]
mod sealing;
#[cfg(test)]
mod server_names;
#[cfg(test)]
mod shadows;
#[cfg(test)]
mod sight;
#[cfg(test)]
mod signatures;
#[cfg(test)]
mod tables;
#[cfg(test)]
mod tampering;
#[cfg(test)]
mod ticket_keys;
#[cfg(test)]
mod token;
#[cfg(test)]
mod upgrade;
#[cfg(test)]
mod upstreams;
#[cfg(test)]
mod wildcards;
#[cfg(test)]
mod world;
