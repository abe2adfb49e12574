//! Roles that names give an address beside those of its prefix.

use std::net::IpAddr;
use std::sync::Arc;

use super::super::super::SlotDirectory;
use super::super::*;
use crate::matrix::Matrix;
use crate::matrix::compile::HostAddresses;
use crate::matrix::compiled::Compiled;
use crate::site::Site;
use crate::site::tags::TagBook;
use crate::verdict::role_name;

fn installed(text: &str) -> Installed {
    let reading = Matrix::read_text("s.yaml", text);
    assert!(!reading.findings.has_errors(), "{:?}", reading.findings);
    let site = Site::read_text("site.yaml", "site: x\nsystems: [s]\n", &reading)
        .site
        .unwrap();
    let bindings = site.role_bindings(&reading.matrix, &TagBook::default());
    let compiled =
        Compiled::compile(Arc::new(reading.matrix), bindings, &HostAddresses::Unknown).unwrap();
    Installed::new(Arc::new(compiled), SlotDirectory::default())
}

#[test]
fn names_add_to_the_roles_of_a_prefix() {
    let installed = installed(
        "system: s\ntitle: S\nroles:\n  cloud: {names: [192.0.2.0/24]}\n  shop: {names: [shop.example.org]}\n  \
         any-shop: {names: [\"*.example.org\"]}\nrequirements:\n  \
         - {id: a, from: cloud, to: shop, services: [tcp/443]}\n  \
         - {id: b, from: cloud, to: any-shop, services: [tcp/443]}\n",
    );
    let check = |address: &str, names: &[&str], expect: &[&str]| {
        let address: IpAddr = address.parse().unwrap();
        let patterns: Vec<u32> = (0..)
            .zip(&installed.compiled.names)
            .filter(|(_, name)| names.contains(&name.pattern.as_str()))
            .map(|(number, _)| number)
            .collect();
        let roles = installed.roles_by_names(NamedEnd {
            class: installed.address_class(&address.into()),
            patterns: &patterns,
        });
        let roles: Vec<String> = roles
            .into_iter()
            .map(|role| role_name(&installed.compiled, role))
            .collect();
        assert_eq!(roles, expect, "{address} {names:?}");
    };
    let (exact, wildcard) = ("shop.example.org", "*.example.org");
    check("198.51.100.1", &[], &[]);
    check("192.0.2.1", &[], &["s/cloud"]);
    check("198.51.100.1", &[wildcard], &["s/any-shop"]);
    check(
        "198.51.100.1",
        &[exact, wildcard],
        &["s/shop", "s/any-shop"],
    );
    check(
        "192.0.2.1",
        &[exact, wildcard],
        &["s/cloud", "s/shop", "s/any-shop"],
    );
}
