use super::*;
#[test]
#[ignore]
fn dump() {
    let out = std::path::PathBuf::from(std::env::var("DUMP_OUT").unwrap());
    let list = std::fs::read_to_string(std::env::var("DUMP_LIST").unwrap()).unwrap();
    let mut index = String::new();
    for (i, file) in list.lines().enumerate() {
        let bytes = std::fs::read(file).unwrap();
        match decoded(&bytes) {
            Ok((p, rgb)) => {
                std::fs::write(out.join(format!("{i}.rgb")), &rgb).unwrap();
                std::fs::write(out.join(format!("{i}.256")), prepared(&bytes, 256)).unwrap();
                std::fs::write(out.join(format!("{i}.64")), prepared(&bytes, 64)).unwrap();
                index += &format!("{i}\t{file}\t{}\t{}\t{:?}\n", p.width, p.height, p.orientation);
            }
            Err(e) => index += &format!("{i}\t{file}\t-\t-\t{e}\n"),
        }
    }
    std::fs::write(out.join("index.tsv"), index).unwrap();
}
