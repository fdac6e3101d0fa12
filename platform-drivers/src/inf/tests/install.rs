//! What Windows makes of the sections of an installation.

use super::*;

#[test]
fn needed_sections_come_first_from_included_infs_and_missing_ones_are_listed() {
    let mut library = InfLibrary::default();
    let other = format!(
        "{HEADER}[Base]\nNeeds = Deeper\nAddReg = R\n[R]\nHKR,,from,,base\n[Deeper]\nAddReg = D\n\
         [D]\nHKR,,from,,deeper\n"
    );
    library.insert("Other.INF", parse(&other));
    let text = with_models(
        "d = A, ID\\A\n[A]\nInclude = other.inf, missing.inf\nNeeds = Base, Nowhere\nAddReg = Own\n\
         [Own]\nHKR,,from,,own\n",
    );
    let plan = parse(&text).plan(r"ID\A", &windows_10(), &library).unwrap();
    let from: Vec<_> = plan.registry.iter().map(|change| &change.action).collect();
    let expected = ["deeper", "base", "own"].map(|text| RegistryAction::Set {
        name: "from".to_owned(),
        value: RegValue::sz(text),
        rule: SetRule::Always,
    });
    assert_eq!(from, expected.iter().collect::<Vec<_>>());
    assert_eq!(plan.included, ["other.inf", "missing.inf"]);
    let [unresolved] = &plan.unresolved[..] else {
        panic!("{:?}", plan.unresolved)
    };
    assert_eq!(unresolved.section, "Nowhere");
    assert_eq!(unresolved.line, LineNumber(9));
}

#[test]
fn sections_that_need_each_other_are_followed_once() {
    let text = with_models(
        "d = A, ID\\A\n[A]\nNeeds = B\nAddReg = R\n[B]\nNeeds = A\nAddReg = R\n[R]\nHKR,,n,,v\n",
    );
    assert_eq!(plan(&parse(&text), r"ID\A").registry.len(), 2);
}

#[test]
fn filters_are_found_by_value_and_by_directive() {
    let text = with_models(
        "d = A, ID\\A
[A]
[A.HW]
AddReg = H
[H]
HKR,,UpperFilters,0x10000,one,two
HKR,,LowerFilters,0x10008,three
HKR,Other,UpperFilters,0x10000,none
[A.Filters]
AddFilter = four,,F
[F]
FilterPosition = Lower
",
    );
    let filters: Vec<_> = plan(&parse(&text), r"ID\A")
        .filters
        .into_iter()
        .map(|filter| (filter.service, filter.position))
        .collect();
    let filter = |name: &str, position| (name.to_owned(), position);
    assert_eq!(
        filters,
        [
            filter("four", FilterPosition::Lower),
            filter("one", FilterPosition::Upper),
            filter("two", FilterPosition::Upper),
            filter("three", FilterPosition::Lower),
        ]
    );
}

#[test]
fn the_path_of_a_service_is_written_as_windows_writes_it() {
    for (binary, kind, start, expected) in [
        ("%12%\\a.sys", 1, 0, r"System32\drivers\a.sys"),
        ("%12%\\a.sys", 1, 3, r"\SystemRoot\System32\drivers\a.sys"),
        (
            "%10%\\system32\\drivers\\a.sys",
            2,
            1,
            r"\SystemRoot\system32\drivers\a.sys",
        ),
        ("%13%\\a.sys", 1, 3, r"%13%\a.sys"),
        ("%11%\\a.exe", 16, 2, r"%SystemRoot%\System32\a.exe"),
        ("%16422%\\a.exe", 16, 2, r"C:\Program Files\a.exe"),
    ] {
        let text = with_models(&format!(
            "d = A, ID\\A\n[A]\n[A.Services]\nAddService = s,2,S\nAddService = ,2\n[S]\n\
             ServiceType={kind}\nStartType={start}\nErrorControl=1\nServiceBinary={binary}\n"
        ));
        let plan = plan(&parse(&text), r"ID\A");
        assert_eq!(plan.services.len(), 1);
        assert_eq!(plan.services[0].image_path, expected);
    }
}

#[test]
fn a_service_that_lacks_what_windows_needs_is_refused() {
    for (section, expected) in [
        (
            "[S]\nStartType=3\n",
            "line 9: AddService = s: the ServiceType is missing",
        ),
        ("[T]\n", "line 9: AddService names the section [S]"),
        (
            "[S]\nServiceType=x\n",
            "line 11: ServiceType: expected a number, found \"x\"",
        ),
    ] {
        let text = with_models(&format!(
            "d = A, ID\\A\n[A]\n[A.Services]\nAddService = s,2,S\n{section}"
        ));
        let error = parse(&text)
            .plan(r"ID\A", &windows_10(), &InfLibrary::default())
            .unwrap_err()
            .to_string();
        assert_eq!(error.split_at(expected.len()).0, expected);
    }
}

#[test]
fn what_only_windows_can_do_is_listed() {
    let text = with_models(
        "d = A, ID\\A\n[A]\nRegisterDlls = R\nReboot\n[A.Components]\nAddComponent = c,,C\n",
    );
    let plan = plan(&parse(&text), r"ID\A");
    assert!(plan.reboot);
    let left: Vec<_> = plan
        .left_to_windows
        .iter()
        .map(|left| (left.section.as_str(), left.directive.as_str()))
        .collect();
    assert_eq!(
        left,
        [("A", "RegisterDlls"), ("A.Components", "AddComponent")]
    );
}

#[test]
fn a_driver_without_a_device_is_installed_by_its_default_section() {
    let text = format!(
        "{HEADER}[DefaultInstall.NTamd64]\n[DefaultInstall.NTamd64.Services]\nAddService = f,0,F\n\
         [F]\nServiceType=2\nStartType=0\nErrorControl=1\nServiceBinary=%12%\\f.sys\n"
    );
    let inf = parse(&text);
    let plan = inf.plan_default(&windows_10(), &InfLibrary::default());
    let plan = plan.unwrap().unwrap();
    assert_eq!(plan.services[0].name, "f");
    assert!(plan.function_driver().is_none());
    assert!(matches!(
        inf.models(&windows_10()).unwrap_err().kind,
        InfErrorKind::NotForThisWindows { .. }
    ));
    let arm = WindowsTarget {
        architecture: Architecture::Arm64,
        ..windows_10()
    };
    assert_eq!(inf.plan_default(&arm, &InfLibrary::default()), Ok(None));
}

#[test]
fn a_class_that_the_inf_brings_is_registered() {
    let text = format!(
        "{HEADER}[ClassInstall32]\nAddReg = C\n[C]\nHKR,,,0,\"My class\"\nHKR,,UpperFilters,0x10008,f\n"
    );
    let changes = parse(&text).class_installation(&windows_10()).unwrap();
    assert_eq!(changes.len(), 2);
    assert!(
        changes
            .iter()
            .all(|change| change.root == RegistryRoot::Class)
    );
}
