/**
 * CLIP's byte-pair tokenizer: the same ids as `mcliplib.get_tokenizer(model)` gives.
 *
 * One difference is left: `clean` repairs no text that was decoded in a wrong encoding ("cafÃ©"), as Python's ftfy does.
 * Characters newer than the Unicode of either side may be lower-cased or composed differently.
 */

const BYTE_TOKENS = 512; // ids 0 to 255: a byte; 256 to 511: a byte at the end of a word
const START = 49406;
const END = 49407;

// The text is in lower case; ſ is the one other letter that Python, which ignores case here, takes for an s.
const WORDS = /<[sſ]tart_of_text>|<end_of_text>|'[sſ]|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^ \p{L}\p{N}]+/gu;
const WHITE = /[\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+/g; // Python's str.split
const CONTROL = /[\0-\x08\x0b\x0e-\x1f\x7f\u206a-\u206f\ufeff\ufff9-\ufffc]/g;

/**
 * @typedef {object} Tables what `tokenizer.json` holds
 * @property {number} context_length ids per text
 * @property {number[] | null} vocab CLIP ids in use, ascending; null: all
 * @property {Record<string, string>} entities HTML's names, some of them without their semicolon
 * @property {Record<string, string>} capital_entities names in capitals that HTML does not know
 * @property {Record<string, string>} replaced_references numbers of HTML references with another meaning
 * @property {number[]} dropped_references numbers that stand for nothing
 * @property {Record<string, string>} characters ligatures and wide or narrow forms, and what they become
 * @property {string} c1 the characters for U+0080 to U+009F
 */

export class Tokenizer {
  /**
   * @param {Tables} tables
   * @param {Uint16Array} merges pairs of CLIP ids; pair number i makes token 512 + i
   */
  constructor(tables, merges) {
    this.tables = tables;
    this.merges = merges;
    this.contextLength = tables.context_length;
    this.ranks = new Map();
    for (let i = 0; i < merges.length / 2; i++) this.ranks.set(merges[2 * i] * 65536 + merges[2 * i + 1], i);
    this.ids = tables.vocab && new Map(tables.vocab.map((id, index) => [id, index]));
    this.bytes = byteIds();
    this.utf8 = new TextEncoder();
  }

  /**
   * Start, tokens, end, zeros.
   * @param {string} text
   * @returns {number[]} of the context length
   */
  encode(text) {
    const ids = [START, ...this.pieces(text).slice(0, this.contextLength - 2), END];
    const known = ids.map((id, i) => (i === 0 || i === ids.length - 1) && this.ids ? this.ids.get(id) : id);
    return [...known, ...new Array(this.contextLength - known.length).fill(0)];
  }

  /**
   * The ids of a text, without start and end.
   * @param {string} text
   * @returns {number[]}
   */
  pieces(text) {
    const words = clean(text, this.tables).match(WORDS) ?? [];
    const ids = words.flatMap((word) => this.merged(word));
    return this.ids ? ids.flatMap((id) => this.split(id)) : ids;
  }

  /**
   * CLIP ids of one word: neighbours are joined as long as there is a merge for them, the earliest merge first.
   * @param {string} word
   * @returns {number[]}
   */
  merged(word) {
    if (word === "<start_of_text>") return [START];
    if (word === "<end_of_text>") return [END];
    let ids = Array.from(this.utf8.encode(word), (byte) => this.bytes[byte]);
    ids[ids.length - 1] += BYTE_TOKENS / 2;
    while (ids.length > 1) {
      let best = Infinity;
      for (let i = 0; i + 1 < ids.length; i++) best = Math.min(best, this.ranks.get(ids[i] * 65536 + ids[i + 1]) ?? best);
      if (best === Infinity) break;
      const [left, right] = [this.merges[2 * best], this.merges[2 * best + 1]];
      const joined = [];
      for (let i = 0; i < ids.length; i++) {
        const both = ids[i] === left && ids[i + 1] === right;
        joined.push(both ? BYTE_TOKENS + best : ids[i]);
        if (both) i++;
      }
      ids = joined;
    }
    return ids;
  }

  /**
   * The place of a token in the restricted vocabulary, or those of its two halves, and so on down to bytes.
   * @param {number} id
   * @returns {number[]}
   */
  split(id) {
    const known = this.ids.get(id);
    if (known !== undefined) return [known];
    const merge = 2 * (id - BYTE_TOKENS);
    return [...this.split(this.merges[merge]), ...this.split(this.merges[merge + 1])];
  }
}

/** CLIP's ids of the 256 bytes: first those that print, then the others. */
function byteIds() {
  const prints = (byte) => (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);
  const all = Array.from({ length: 256 }, (_, byte) => byte);
  const order = [...all.filter(prints), ...all.filter((byte) => !prints(byte))];
  const ids = new Array(256);
  order.forEach((byte, id) => (ids[byte] = id));
  return ids;
}

/**
 * A text as the tokenizer wants it: odd characters replaced, HTML entities read, white space folded, in lower case.
 * @param {string} text
 * @param {Tables} tables
 * @returns {string}
 */
export function clean(text, tables) {
  let entities = true;
  const lines = text.replace(/[^\n]*\n|[^\n]+$/g, (line) => {
    entities &&= !line.includes("<"); // markup in a line: from there on, ampersands are meant as they are
    return fixed(line, tables, entities);
  });
  return unescaped(unescaped(lines, tables), tables).replace(WHITE, " ").replace(/^ | $/g, "").toLowerCase();
}

/** One line repaired, again and again until nothing changes. */
function fixed(line, tables, entities) {
  for (;;) {
    const before = line;
    if (entities) line = line.replace(/&#?[0-9A-Za-z]{1,24};/g, (one) => cautiously(one, tables));
    line = line
      .replace(/[\x80-\x9f]/g, (one) => tables.c1[one.charCodeAt(0) - 0x80])
      .replace(/[^\0-\x7f]/g, (one) => tables.characters[one] ?? one)
      .replace(/[\u201c-\u201f]/g, '"')
      .replace(/[\u02bc\u2018-\u201b]/g, "'")
      .replace(/\r\n|[\r\u2028\u2029\x85]/g, "\n")
      .replace(/\p{Cs}/gu, "\ufffd")
      .replace(/\x1b\[[\p{Nd};]*[a-zA-Z]/gu, "")
      .replace(CONTROL, "")
      .normalize("NFC");
    if (line === before) return line;
  }
}

/** A whole entity as its character; itself where HTML would read only a part of it. */
function cautiously(entity, tables) {
  const name = entity.slice(1);
  if (!name.startsWith("#")) return own(tables.entities, name) ?? own(tables.capital_entities, name) ?? entity;
  const character = unescaped(entity, tables);
  return character.includes(";") ? entity : character;
}

/** HTML's character references replaced, as browsers do, also those without a semicolon. */
function unescaped(text, tables) {
  return text.replace(/&(#[0-9]+;?|#[xX][0-9a-fA-F]+;?|[^\t\n\f <&#;]{1,32};?)/gu, (all, reference) => {
    if (reference[0] === "#") return numbered(reference, tables);
    for (let end = reference.length; end > 1; end--) {
      const character = own(tables.entities, reference.slice(0, end));
      if (character !== undefined) return character + reference.slice(end);
    }
    return all;
  });
}

function numbered(reference, tables) {
  const code = /x/i.test(reference[1]) ? parseInt(reference.slice(2), 16) : parseInt(reference.slice(1), 10);
  const other = own(tables.replaced_references, String(code));
  if (other !== undefined) return other;
  if (code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff)) return "\ufffd";
  return tables.dropped_references.includes(code) ? "" : String.fromCodePoint(code);
}

function own(table, key) {
  return Object.hasOwn(table, key) ? table[key] : undefined;
}
