//! Reads INFs of any bytes and follows all they say for several Windows.
//!
//! Oracle: nothing panics or takes long. What is read, printed and read again has the same sections
//! and the same plans. The line of an error is one of the file.

#![no_main]

use ce_platform::inf::{
    Architecture, Inf, InfError, InfLibrary, InstallPlan, ProductType, WindowsTarget,
    WindowsVersion,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let inf = match Inf::parse(bytes) {
        Ok(inf) => inf,
        Err(error) => {
            // A line has a line feed of at least one byte before it.
            assert_line(&error, bytes.len() + 1);
            return;
        }
    };
    let printed = inf.sections().to_string();
    let again = Inf::parse(printed.as_bytes()).expect("text of our own");
    assert_eq!(again.sections().to_string(), printed);
    assert_eq!(again.version(), inf.version());
    let mut library = InfLibrary::default();
    library.insert("self.inf", again.clone());
    for target in targets() {
        assert_eq!(
            seen(&inf, &target, &library, bytes.len()).map(|plan| shape(&plan)),
            seen(&again, &target, &library, printed.len()).map(|plan| shape(&plan)),
        );
        if let Err(error) = inf.class_installation(&target) {
            assert_line(&error, bytes.len() + 1);
        }
    }
    // Its errors are those of the models.
    let _ = inf.supported();
});

/// The plan of the last device, or of no device.
fn seen(inf: &Inf, target: &WindowsTarget, library: &InfLibrary, len: usize) -> Option<InstallPlan> {
    let models = match inf.models(target) {
        Ok(models) => models,
        Err(error) => {
            assert_line(&error, len + 1);
            return inf.plan_default(target, library).ok().flatten();
        }
    };
    let model = models.into_iter().last()?;
    match inf.plan_model(model, target, library) {
        Ok(plan) => Some(plan),
        Err(error) => {
            assert_line(&error, len + 1);
            None
        }
    }
}

/// What does not depend on where in the file a line stands.
fn shape(plan: &InstallPlan) -> (String, usize, usize, usize, Vec<String>) {
    (
        plan.section.clone(),
        plan.copies.len(),
        plan.registry.len(),
        plan.filters.len(),
        plan.services
            .iter()
            .map(|service| format!("{} {}", service.name, service.image_path))
            .collect(),
    )
}

fn assert_line(error: &InfError, most: usize) {
    if let Some(line) = error.line {
        assert!(line.0 >= 1 && line.0 as usize <= most, "{error}");
    }
}

fn targets() -> [WindowsTarget; 2] {
    let target = |architecture, build| WindowsTarget {
        architecture,
        version: WindowsVersion {
            major: 10,
            minor: 0,
            build,
        },
        product_type: ProductType::Server,
        suites: 0,
    };
    [
        target(Architecture::Amd64, 17763),
        target(Architecture::X86, 10240),
    ]
}
