use super::*;
use crate::matrix::Matrix;

const MATRIX: &str = "system: ras\ntitle: RAS\nroles:\n  client: {}\n  halb: {}\n  spare: {}\n  cloud: {names: ['*.example.org']}\n  metadata: {names: [169.254.169.254]}\n\
requirements:\n- {id: a, from: client, to: halb, services: [tcp/443]}\n- {id: b, from: halb, to: cloud, services: [tcp/443]}\n- {id: c, from: halb, to: metadata, services: [tcp/80]}\n";

const BOUND: &str =
    "roles: {ras/client: [10.20.0.0/16], ras/halb: [10.1.0.10], ras/cloud: [192.0.2.0/24]}\n";

/// Expects the findings as `CODE LINE:COLUMN PART-OF-THE-MESSAGE`, in order.
#[track_caller]
fn check(text: &str, expect: &[&str]) -> SiteReading {
    let mut matrix = Matrix::read_text("ras.yaml", MATRIX);
    matrix.faulty.insert("broken".to_owned());
    let other = Matrix::read_text(
        "other.yaml",
        &MATRIX.replace("system: ras", "system: other"),
    );
    matrix.matrix.systems.extend(other.matrix.systems);
    let reading = Site::read_text("site.yaml", text, &matrix);
    let found = reading.findings.as_slice();
    let matches = found.len() == expect.len()
        && found.iter().zip(expect).all(|(finding, expect)| {
            let mut parts = expect.splitn(3, ' ');
            let place = format!("{}:{}", finding.line, finding.column);
            parts.next() == Some(finding.code)
                && parts.next() == Some(place.as_str())
                && finding.message.contains(parts.next().unwrap_or_default())
        });
    let listed: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert!(matches, "expected {expect:#?}\nfound {listed:#?}");
    let faulty = text.contains("broken");
    assert_eq!(
        reading.site.is_none(),
        faulty || reading.findings.has_errors()
    );
    reading
}

fn site(lines: &str) -> String {
    format!("site: hq\nsystems: [ras]\n{lines}")
}

/// A matrix file that can't even be parsed hides its system: the site is not to blame.
#[test]
fn an_unparsable_matrix_is_told_once() {
    let reading = Matrix::read_text("ras.yaml", "system: [");
    assert!(reading.findings.has_errors());
    let site = Site::read_text("site.yaml", &site(BOUND), &reading);
    assert!(!site.findings.has_errors(), "{:?}", site.findings);
    assert!(site.site.is_none());
}

#[test]
fn reads_a_site() {
    let reading = check(
        &format!("{}observe: [10.1.0.0/16, 2001:db8::1]\n", site(BOUND)),
        &[],
    );
    let site = reading.site.unwrap();
    assert_eq!(site.name, "hq");
    assert_eq!(site.systems, [SystemIndex(0)]);
    assert_eq!(site.roles.len(), 3);
    assert_eq!(site.roles[1].role, RoleIndex(1));
    assert_eq!(site.observe.len(), 2);
    let matrix = Matrix::read_text("ras.yaml", MATRIX).matrix;
    let cloud = matrix.systems[0].find_role("cloud").unwrap();
    let bindings: Vec<String> = site
        .bindings(&matrix, SystemIndex(0), cloud)
        .map(ToString::to_string)
        .collect();
    assert_eq!(bindings, ["*.example.org", "192.0.2.0/24"]);
}

#[test]
fn open_roles_are_notes() {
    check(
        &site(""),
        &[
            "role-not-bound 2:11 `ras/client`",
            "role-not-bound 2:11 `ras/halb`",
        ],
    );
    check(
        &site("roles: {ras/client: [], ras/halb: , ras/cloud: ['::/0']}\n"),
        &[
            "role-not-bound 2:11 `ras/client`",
            "role-not-bound 2:11 `ras/halb`",
        ],
    );
    check(
        &site(
            "roles:\n  ras/client: [halb.example.org]\n  ras/halb: ['tag:AzureCloud']\n  ras/cloud: [10.0.0.2]\n",
        ),
        &[],
    );
}

#[test]
fn systems_are_checked() {
    check(
        &site(BOUND).replace("[ras]", "[rsa]"),
        &["unknown-system 2:11 did you mean `ras`?"],
    );
    check(
        &site(BOUND).replace("[ras]", "[ras, zebra]"),
        &["unknown-system 2:16 known are `ras`, `other`, `broken`"],
    );
    check(
        &site(BOUND).replace("[ras]", "[ras, ras]"),
        &["duplicate-system 2:16 "],
    );
    // The errors of the matrix file are enough.
    check(
        &format!(
            "{}  \n",
            site(BOUND)
                .replace("[ras]", "[ras, broken]")
                .replace("ras/halb:", "broken/halb: [10.0.0.1], ras/halb:")
        ),
        &[],
    );
    check("site: hq\nsystems: []\n", &["no-systems 2:10 "]);
    check("site: hq\n", &["missing-key 1:1 `systems`"]);
    check(
        "site: hq\nsystems: ras\n",
        &["wrong-type 2:10 write `systems: [ras]`"],
    );
}

#[test]
fn role_keys_are_checked() {
    let with = |line: &str| {
        format!(
            "{}  {line}\n",
            site(
                "roles:\n  ras/client: [10.20.0.0/16]\n  ras/halb: [10.1.0.10]\n  ras/cloud: [192.0.2.0/24]\n"
            )
        )
    };
    check(&with("halb: [10.0.0.1]"), &["bad-role-key 7:3 `ras/halb`"]);
    check(
        &with("rsa/halb: [10.0.0.1]"),
        &["unknown-system 7:3 did you mean `ras`?"],
    );
    check(
        &with("ras/hlab: [10.0.0.1]"),
        &["unknown-role 7:3 did you mean `halb`?"],
    );
    check(
        &with("ras/zebra: [10.0.0.1]"),
        &["unknown-role 7:3 known are `client`, `halb`"],
    );
    check(&with("ras/any: [10.0.0.1]"), &["built-in-role 7:3 "]);
    check(&with("ras/halb: [10.0.0.1]"), &["duplicate-key 7:3 line 5"]);
    check(
        &with("other/halb: [10.0.0.1]"),
        &["system-not-deployed 7:3 add `other`"],
    );
    check(
        &with("ras/spare: 10.0.0.1"),
        &["wrong-type 7:14 write `ras/spare: [10.0.0.1]`"],
    );
}

#[test]
fn bindings_are_checked() {
    check(
        &site(
            "roles:\n  ras/client: [10.0.0.300, 10.0.0.0/33, a b]\n  ras/halb: [10.0.0.1/8, 10.0.0.0/8]\n  zebra/x: ['']\n",
        ),
        &[
            "bad-binding 4:16 looks like an address",
            "bad-binding 4:28 is not a prefix",
            "bad-binding 4:41 has blanks",
            "host-bits-set 5:14 10.0.0.0/8",
            "duplicate-binding 5:26 ",
            "unknown-system 6:3 ",
            "empty-text 6:13 ",
        ],
    );
    check(
        &format!("{}observe: [example.org, tag:X, 10.0.0.0/8]\n", site(BOUND)),
        &["bad-prefix 4:11 `example.org`", "bad-prefix 4:24 `tag:X`"],
    );
}

#[test]
fn files_that_are_no_site() {
    check("", &["empty-file 1:1 "]);
    check(MATRIX, &["matrix-file 1:1 "]);
    check(
        "site: hq\nsystms: [ras]\n",
        &[
            "missing-key 1:1 `systems`",
            "unknown-key 2:1 did you mean `systems`?",
        ],
    );
}
