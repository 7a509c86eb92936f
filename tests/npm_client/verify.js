// Verifies a bundle with a trusted root from a file, with npm's @sigstore/verify: the command takes it over TUF alone.
// Usage: node verify.js TRUSTED_ROOT BUNDLE IDENTITY ISSUER [FILE]
import { readFileSync } from "node:fs";
import { bundleFromJSON } from "@sigstore/bundle";
import { TrustedRoot } from "@sigstore/protobuf-specs";
import { toSignedEntity, toTrustMaterial, Verifier } from "@sigstore/verify";

const [root, bundle, identity, issuer, file] = process.argv.slice(2);
const read = (path) => JSON.parse(readFileSync(path, "utf8"));
const verifier = new Verifier(toTrustMaterial(TrustedRoot.fromJSON(read(root))), {});
const signed = toSignedEntity(bundleFromJSON(read(bundle)), file && readFileSync(file));
verifier.verify(signed, { subjectAlternativeName: new RegExp(`^${identity.replaceAll(".", "\\.")}$`), extensions: { issuer } });
