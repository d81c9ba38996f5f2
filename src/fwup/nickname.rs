//! The words of nicknames: short, friendly, told apart on the telephone.

#[rustfmt::skip]
pub static NICKNAMES: [&str; 256] = [
    "acorn", "agate", "album", "alder", "almond", "amber", "anchor", "apple", "apron", "arrow", "aspen", "atlas",
    "autumn", "badger", "bagel", "bamboo", "banjo", "barley", "basil", "basket", "beacon", "beaver", "bench", "berry",
    "birch", "bishop", "bison", "blanket", "bloom", "bonnet", "border", "bottle", "bramble", "brass", "bread", "breeze",
    "brick", "bridge", "brook", "bubble", "bucket", "butter", "button", "cabin", "cactus", "camel", "candle", "canoe",
    "canvas", "carbon", "carrot", "castle", "cedar", "chalk", "cherry", "chess", "circle", "citrus", "clay", "cliff",
    "clover", "cobalt", "cocoa", "comet", "copper", "coral", "cotton", "coyote", "cradle", "crayon", "cricket", "crystal",
    "cup", "curtain", "cypress", "daisy", "dancer", "delta", "desert", "diamond", "dolphin", "domino", "donkey", "dragon",
    "drum", "eagle", "echo", "elbow", "elk", "ember", "engine", "fable", "falcon", "farm", "feather", "fern",
    "ferry", "fiddle", "field", "finch", "flame", "flint", "flute", "forest", "fossil", "fox", "garden", "garlic",
    "gecko", "ginger", "glacier", "glove", "goose", "granite", "grape", "gravel", "guitar", "hammer", "harbor", "harp",
    "hazel", "heron", "hiking", "honey", "horizon", "hotel", "igloo", "indigo", "iris", "island", "ivory", "jacket",
    "jaguar", "jasmine", "jelly", "jewel", "jungle", "juniper", "kayak", "kettle", "kiwi", "name", "ladder", "lagoon",
    "lantern", "lapis", "laurel", "lemon", "lentil", "lily", "linen", "lion", "lizard", "lobster", "lotus", "lunar",
    "magnet", "mango", "maple", "marble", "market", "meadow", "melon", "meteor", "mint", "mirror", "mitten", "monkey",
    "moose", "mosaic", "moss", "mountain", "museum", "mustard", "nectar", "needle", "nickel", "noodle", "nutmeg", "oasis",
    "pen", "olive", "onion", "opal", "orange", "orbit", "orchid", "otter", "oyster", "paddle", "palace", "panda",
    "paper", "parrot", "pasta", "peach", "pearl", "pebble", "pelican", "pencil", "pepper", "piano", "pickle", "pigeon",
    "pillow", "pine", "planet", "plum", "pocket", "poem", "pond", "poppy", "potato", "prairie", "puffin", "pumpkin",
    "quartz", "quilt", "rabbit", "radish", "raven", "ribbon", "rice", "river", "robin", "rocket", "ruby", "saddle",
    "saffron", "salmon", "sandal", "saturn", "scarf", "seal", "shadow", "silver", "sparrow", "spinach", "spiral", "spruce",
    "squirrel", "summit", "sunset", "table", "tango", "teapot", "thunder", "tiger", "tomato", "topaz", "tulip", "tundra",
    "turtle", "velvet", "violet", "zebra",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_word_comes_twice() {
        let different: std::collections::BTreeSet<_> = NICKNAMES.iter().collect();
        assert_eq!(different.len(), NICKNAMES.len());
    }
}
