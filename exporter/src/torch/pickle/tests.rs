use super::*;

#[test]
fn values_of_every_kind_are_read() {
    // pickle.dumps({"a": (1, -2, 300, 2.5, None, True), "b": [1 << 40, b"xy"]}, protocol=2), shortened by hand.
    let mut bytes = b"\x80\x02}(X\x01\x00\x00\x00a(K\x01J\xfe\xff\xff\xffM,\x01G@\x04".to_vec();
    bytes.extend(
        b"\x00\x00\x00\x00\x00\x00N\x88tX\x01\x00\x00\x00b](\x8a\x06\x00\x00\x00\x00\x00\x01C\x02xyeu.rest",
    );
    let pickle = Pickle::read(&bytes).unwrap();
    assert_eq!(&bytes[pickle.length..], b"rest");
    let entries = pickle.dict(pickle.root).unwrap();
    assert_eq!(pickle.text(entries[0].0), Some("a"));
    let tuple: Vec<&Node> = pickle.tuple(entries[0].1).unwrap().iter().map(|&v| pickle.node(v)).collect();
    let expected =
        [Node::Int(1), Node::Int(-2), Node::Int(300), Node::Float(2.5), Node::None, Node::Bool(true)];
    assert!(tuple.into_iter().eq(&expected));
    let list: Vec<&Node> = pickle.tuple(entries[1].1).unwrap().iter().map(|&v| pickle.node(v)).collect();
    assert!(list.into_iter().eq(&[Node::Int(1 << 40), Node::Bytes(b"xy".into())]));
}

#[test]
fn calls_are_kept_and_not_made() {
    let pickle = Pickle::read(b"cos\nsystem\n(X\x02\x00\x00\x00lstR.").unwrap();
    let (module, name, arguments) = pickle.call(pickle.root).unwrap();
    assert_eq!((module, name, pickle.text(arguments[0])), ("os", "system", Some("ls")));
}

#[test]
fn nesting_costs_no_stack() {
    let mut bytes = b"N".to_vec();
    bytes.resize(1_000_000, 0x85);
    bytes.push(b'.');
    assert!(Pickle::read(&bytes).is_ok());
}

#[test]
fn random_bytes_are_errors_or_values_and_never_a_panic() {
    let mut state = 7u64;
    let codes = b"\x80.(012N\x88\x89KMJ\x8a\x8bGX\x8cTU)\x85\x86\x87t]l}daesuc\x93R\x81bQqr\x94hj";
    for _ in 0..50_000 {
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize
        };
        let length = random() % 60;
        let bytes: Vec<u8> = (0..length)
            .map(|_| match random() % 4 {
                0 => random() as u8,
                _ => codes[random() % codes.len()],
            })
            .collect();
        let _ = Pickle::read(&bytes);
    }
}
