//! What was released stays as it was.

mod schema;
#[path = "schema/surface.rs"]
mod surface;

use std::fs;

use prost_types::descriptor_proto::ReservedRange;
use prost_types::enum_descriptor_proto::EnumReservedRange;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, EnumValueDescriptorProto, FieldDescriptorProto,
    FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto,
};
use surface::Surface;

#[test]
fn nothing_that_was_released_was_changed_or_taken_away() {
    let now = Surface::of(&schema::compiled());
    let text = fs::read_to_string(RELEASED).unwrap_or_default();
    let mut released = Surface::from_text(&text);
    let broken = released.broken_by(&now);
    assert!(
        broken.is_empty(),
        "peers rely on this:\n{}",
        broken.join("\n")
    );
    if std::env::var_os("CE_BLESS").is_some() {
        released.add(&now);
        fs::write(RELEASED, format!("{HEAD}{}", released.to_text())).expect("it can be written");
    }
    assert!(
        !released.lacks(&now),
        "the files offer more than {RELEASED} says; run this test with CE_BLESS=1"
    );
}

#[test]
fn the_text_of_a_surface_reads_back_as_the_same() {
    let now = Surface::of(&schema::compiled());
    let read = Surface::from_text(&now.to_text());
    assert_eq!(read.to_text(), now.to_text());
    assert!(!read.lacks(&now) && !now.lacks(&read));
}

#[test]
fn additions_break_nothing() {
    let mut files = schema::compiled();
    add_one_of_everything(&mut files);
    let (before, after) = (Surface::of(&schema::compiled()), Surface::of(&files));
    assert_eq!(before.broken_by(&after), Vec::<String>::new());
    // And they are seen: the file of what was released would have to be renewed.
    let mut known = before.clone();
    assert!(known.lacks(&after));
    known.add(&after);
    let added: Vec<_> = (known.to_text().lines())
        .filter(|line| !before.to_text().contains(line))
        .map(str::to_owned)
        .collect();
    let expected = [
        "call ce.connector.v1.Connector More = (.ce.connector.v1.More) returns (.ce.connector.v1.Ack)",
        "call ce.connector.v1.Other More = (.ce.connector.v1.More) returns (.ce.connector.v1.Ack)",
        "enum ce.connector.v1.MorePlatforms = there",
        "field ce.connector.v1.Ack 2 = more uint64",
        "field ce.connector.v1.AgentMessage 99 = more .ce.connector.v1.Ack in body",
        "field ce.connector.v1.JobRequest 99 = more uint64 optional",
        "field ce.connector.v1.More 1 = sequence uint64",
        "message ce.connector.v1.More = there",
        "value ce.connector.v1.Platform 7 = PLATFORM_MORE",
    ];
    for line in expected {
        assert!(
            added.iter().any(|added| added == line),
            "{line}: {added:#?}"
        );
    }
}

/// A field, alone, in a `oneof` and with presence; a message, an enum, a value, a call and a service.
fn add_one_of_everything(files: &mut FileDescriptorSet) {
    let named_more = |field: &FieldDescriptorProto, number| FieldDescriptorProto {
        name: Some("more".into()),
        number: Some(number),
        ..field.clone()
    };
    let ack = message(files, "Ack");
    let more = named_more(&ack.field[0], 2);
    ack.field.push(more);
    let body = message(files, "AgentMessage");
    let last = body.field.iter().rfind(|field| field.oneof_index.is_some());
    let more = named_more(last.expect("ack"), 99);
    body.field.push(more);
    let request = message(files, "JobRequest");
    let timeout = request.field.iter().find(|field| field.number() == 16);
    let more = named_more(timeout.expect("timeout_seconds"), 99);
    request.field.push(more);
    let platform = values(files, "Platform");
    let mut more_platforms = platform.clone();
    let mut more = platform.value[0].clone();
    (more.name, more.number) = (Some("PLATFORM_MORE".into()), Some(7));
    platform.value.push(more);
    more_platforms.name = Some("MorePlatforms".into());
    let mut more = message(files, "Ack").clone();
    more.name = Some("More".into());
    let file = (files.file.iter_mut()).find(|file| !file.service.is_empty());
    let file = file.expect("session.proto");
    file.message_type.push(more);
    file.enum_type.push(more_platforms);
    let call = MethodDescriptorProto {
        name: Some("More".into()),
        input_type: Some(".ce.connector.v1.More".into()),
        output_type: Some(".ce.connector.v1.Ack".into()),
        ..Default::default()
    };
    let mut other = file.service[0].clone();
    (other.name, other.method) = (Some("Other".into()), vec![call.clone()]);
    file.service[0].method.push(call);
    file.service.push(other);
}

#[test]
fn a_field_that_is_renamed_retyped_or_renumbered_is_noticed() {
    let renamed = broken_by(|files| message(files, "Ack").field[0].name = Some("number".into()));
    assert_eq!(
        renamed,
        ["field ce.connector.v1.Ack 1 was `sequence uint64`, is `number uint64`"]
    );
    let retyped = broken_by(|files| message(files, "Ack").field[0].set_type(Type::Int64));
    assert_eq!(
        retyped,
        ["field ce.connector.v1.Ack 1 was `sequence uint64`, is `sequence int64`"]
    );
    let renumbered = broken_by(|files| message(files, "Ack").field[0].number = Some(2));
    assert_eq!(
        renumbered,
        ["field ce.connector.v1.Ack 1 (`sequence uint64`) is gone and not reserved"]
    );
    let repeated = broken_by(|files| message(files, "Ack").field[0].set_label(Label::Repeated));
    assert_eq!(
        repeated,
        ["field ce.connector.v1.Ack 1 was `sequence uint64`, is `sequence uint64 repeated`"]
    );
}

#[test]
fn a_field_that_leaves_its_oneof_or_loses_its_presence_is_noticed() {
    let left = broken_by(|files| {
        let field = message(files, "DiskSelector").field.iter_mut().next();
        field.expect("lun").oneof_index = None;
    });
    assert_eq!(
        left,
        ["field ce.connector.v1.DiskSelector 1 was `lun uint64 in selector`, is `lun uint64`"]
    );
    let lost = broken_by(|files| {
        let fields = &mut message(files, "JobRequest").field;
        let timeout = fields.iter_mut().find(|field| field.number() == 16);
        let timeout = timeout.expect("timeout_seconds");
        (timeout.proto3_optional, timeout.oneof_index) = (None, None);
    });
    assert_eq!(lost.len(), 1, "{lost:?}");
}

#[test]
fn a_field_may_go_only_when_its_number_and_its_name_are_reserved() {
    let number = |ack: &mut DescriptorProto| {
        ack.reserved_range.push(ReservedRange {
            start: Some(1),
            end: Some(2),
        });
    };
    let name = |ack: &mut DescriptorProto| ack.reserved_name.push("sequence".into());
    let broken = |number: Option<fn(&mut _)>, name: Option<fn(&mut _)>| {
        broken_by(|files| {
            let ack = message(files, "Ack");
            ack.field.clear();
            number
                .into_iter()
                .chain(name)
                .for_each(|reserve| reserve(ack));
        })
    };
    assert_eq!(broken(None, None).len(), 1);
    assert_eq!(broken(Some(number), None).len(), 1);
    assert_eq!(broken(None, Some(name)).len(), 1);
    assert_eq!(broken(Some(number), Some(name)).len(), 0);
}

#[test]
fn an_enum_value_may_go_only_when_its_number_and_its_name_are_reserved() {
    let remove = |files: &mut FileDescriptorSet| {
        let platform = values(files, "Platform");
        platform.value.retain(|value| value.number() != 3);
    };
    assert_eq!(
        broken_by(remove),
        ["value ce.connector.v1.Platform 3 (`PLATFORM_GCP`) is gone and not reserved"]
    );
    let reserved = broken_by(|files| {
        remove(files);
        let platform = values(files, "Platform");
        platform.reserved_name.push("PLATFORM_GCP".into());
        platform.reserved_range.push(EnumReservedRange {
            start: Some(3),
            end: Some(3),
        });
    });
    assert_eq!(reserved, Vec::<String>::new());
}

#[test]
fn an_enum_value_that_is_renamed_or_renumbered_is_noticed() {
    let gcp = |files: &mut FileDescriptorSet, change: fn(&mut EnumValueDescriptorProto)| {
        change(&mut values(files, "Platform").value[3]);
    };
    let renamed = broken_by(|files| gcp(files, |value| value.name = Some("PLATFORM_G".into())));
    assert_eq!(
        renamed,
        ["value ce.connector.v1.Platform 3 was `PLATFORM_GCP`, is `PLATFORM_G`"]
    );
    let renumbered = broken_by(|files| gcp(files, |value| value.number = Some(33)));
    assert_eq!(
        renumbered,
        ["value ce.connector.v1.Platform 3 (`PLATFORM_GCP`) is gone and not reserved"]
    );
}

#[test]
fn a_field_of_another_message_or_that_enters_a_oneof_is_noticed() {
    let retyped = broken_by(|files| {
        let field = &mut message(files, "StartJob").field;
        let credentials = field.iter_mut().find(|field| field.number() == 4);
        credentials.expect("credentials").type_name = Some(".ce.connector.v1.Ack".into());
    });
    assert_eq!(
        retyped,
        [
            "field ce.connector.v1.StartJob 4 was `credentials .ce.connector.v1.Credentials`, \
          is `credentials .ce.connector.v1.Ack`"
        ]
    );
    let entered = broken_by(|files| {
        message(files, "AgentMessage").field[0].oneof_index = Some(0);
    });
    assert_eq!(
        entered,
        [
            "field ce.connector.v1.AgentMessage 1 was `sequence uint64`, is `sequence uint64 in body`"
        ]
    );
}

#[test]
fn messages_enums_and_calls_stay() {
    let lost = |change: fn(&mut FileDescriptorProto), expected: &[&str]| {
        let gone = broken_by(|files| files.file.iter_mut().for_each(change));
        for expected in expected {
            assert!(
                gone.iter().any(|line| line.starts_with(expected)),
                "{expected}: {gone:#?}"
            );
        }
    };
    lost(
        |file| file.message_type.retain(|it| it.name() != "CancelJob"),
        &[
            "message ce.connector.v1.CancelJob (`there`) is gone",
            "field ce.connector.v1.CancelJob 1 (`job_id string`) is gone",
        ],
    );
    lost(
        |file| file.enum_type.retain(|it| it.name() != "Network"),
        &[
            "enum ce.connector.v1.Network (`there`) is gone",
            "value ce.connector.v1.Network 1 (`NETWORK_KEEP`) is gone",
        ],
    );
    // What stands within a message is no less relied on.
    lost(
        |file| {
            for message in &mut file.message_type {
                message.enum_type.clear();
                message.nested_type.clear();
            }
        },
        &[
            "enum ce.connector.v1.Goodbye.Reason (`there`) is gone",
            "value ce.connector.v1.Goodbye.Reason 1 (`REASON_STOPPING`) is gone",
            "message ce.connector.v1.Artifacts.DurationsMsEntry (`there`) is gone",
        ],
    );
    lost(
        |file| file.service.clear(),
        &["call ce.connector.v1.Connector Session (`(stream"],
    );
    lost(
        |file| {
            for service in &mut file.service {
                service.method[0].name = Some("Conversation".into());
            }
        },
        &["call ce.connector.v1.Connector Session (`(stream"],
    );
    lost(
        |file| {
            for service in &mut file.service {
                service.method[0].server_streaming = None;
            }
        },
        &["call ce.connector.v1.Connector Session was"],
    );
    lost(
        |file| {
            for service in &mut file.service {
                service.method[0].input_type = Some(".ce.connector.v1.Ack".into());
            }
        },
        &["call ce.connector.v1.Connector Session was"],
    );
    lost(
        |file| file.package = Some("ce.connector.v2".into()),
        &["message ce.connector.v1.Ack (`there`) is gone"],
    );
}

/// What a change of the files would break.
fn broken_by(change: impl FnOnce(&mut FileDescriptorSet)) -> Vec<String> {
    let mut files = schema::compiled();
    let before = Surface::of(&files);
    change(&mut files);
    before.broken_by(&Surface::of(&files))
}

fn message<'f>(files: &'f mut FileDescriptorSet, name: &str) -> &'f mut DescriptorProto {
    let mut messages = files
        .file
        .iter_mut()
        .flat_map(|file| &mut file.message_type);
    messages.find(|message| message.name() == name).expect(name)
}

fn values<'f>(files: &'f mut FileDescriptorSet, name: &str) -> &'f mut EnumDescriptorProto {
    let mut enums = files.file.iter_mut().flat_map(|file| &mut file.enum_type);
    enums.find(|values| values.name() == name).expect(name)
}

const RELEASED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/released/v1.txt");

const HEAD: &str = "\
# What peers of ce.connector.v1 rely on. Lines are added by CE_BLESS=1, and never changed or removed.
";
