//! Who shares an instance. The guest counts its calls, so its answers tell.

use super::*;

fn counting(host: &Host, behaviour: &str, isolation: Isolation) -> Arc<Binding> {
    let plugin = host.load(&guest("hostile")).expect("is a plugin");
    let config = format!(r#"{{"behaviour": "{behaviour}"}}"#);
    host.bind_on(&plugin, &config, &Tables::default(), Callouts::default(), Terms::isolated(isolation))
        .expect("is accepted")
}

fn said(binding: &Binding, tenant: u128) -> u16 {
    match binding.on_request(&RequestFacts { tenant: Tenant(tenant), ..FACTS }, &get("/")) {
        Ok(Action::Deny(status)) => status - 400,
        other => panic!("{other:?}"),
    }
}

#[test]
fn tenants_have_instances_of_their_own_for_a_while() {
    let settings = Settings { tenant_uses: 3..=3, ..Settings::default() };
    let host = Host::new(settings).expect("starts");
    let tenants = counting(&host, "by-path", Isolation::Tenant);
    let answers: Vec<_> = [1, 1, 2, 1, 1, 2].into_iter().map(|tenant| said(&tenants, tenant)).collect();
    assert_eq!(answers, [1, 2, 1, 3, 1, 2], "the first tenant's was replaced after its third call");
    let shared = tenants.on_terms(Terms::default());
    assert_eq!([1, 2, 1, 1].map(|tenant| said(&shared, tenant)), [1, 2, 3, 4]);
    let request = tenants.on_terms(Terms::isolated(Isolation::Request));
    assert_eq!([1, 2, 1].map(|tenant| said(&request, tenant)), [1, 1, 1]);
    assert!(request.usage().is_some_and(|usage| usage.instructions > 0), "also of an instance that is gone");
}

#[test]
fn an_answer_is_not_given_to_another_tenant_or_request() {
    let shared = counting(&HOST, "memo-nothing", Isolation::Shared);
    assert_eq!([1, 2, 1].map(|tenant| said(&shared, tenant)), [1, 1, 1], "no call");
    let tenants = shared.on_terms(Terms::isolated(Isolation::Tenant));
    assert_eq!([1, 2, 1, 2].map(|tenant| said(&tenants, tenant)), [1, 1, 1, 1]);
    let before = Answers::total();
    let request = shared.on_terms(Terms::isolated(Isolation::Request));
    let _ = [1, 1].map(|tenant| said(&request, tenant));
    assert!(Answers::total().called >= before.called + 2, "each one is a call");
}

#[test]
fn a_fault_of_one_tenant_leaves_the_others_instances() {
    let tenants = counting(&HOST, "by-path", Isolation::Tenant);
    assert_eq!([1, 2].map(|tenant| said(&tenants, tenant)), [1, 1]);
    let facts = RequestFacts { tenant: Tenant(1), ..FACTS };
    assert!(tenants.on_request(&facts, &get("/trap")).is_err());
    assert_eq!([1, 2].map(|tenant| said(&tenants, tenant)), [1, 2]);
}

#[test]
fn domains_are_told_apart() {
    assert_ne!(Tenant::of("shop.example"), Tenant::of("blog.example"));
    assert_eq!(Tenant::of("shop.example"), Tenant::of("shop.example"));
}
