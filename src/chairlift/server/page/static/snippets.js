// The form's request as code, against POST /v1/images/generations.

import { serialise } from "./api.js";

/** Arguments of the openai client's own; the others go into extra_body. */
const OPENAI = ["prompt", "n", "size", "output_format", "output_compression"];

/** A command line. */
export function curl(settings, origin) {
  const body = serialise(settings, 2).replaceAll("'", "'\\''");
  return [
    `curl ${origin}/v1/images/generations \\`,
    '  -H "Authorization: Bearer $CHAIRLIFT_API_KEY" \\',
    '  -H "Content-Type: application/json" \\',
    "  -o answer.json \\",
    `  -d '${body}'`,
  ].join("\n");
}

/** Python, with the openai client. */
export function python(settings, origin) {
  const names = Object.keys(settings);
  const own = names.filter((name) => OPENAI.includes(name));
  const extra = Object.fromEntries(
    names.filter((name) => !OPENAI.includes(name)).map((name) => [name, settings[name]]),
  );
  const body = serialise(extra, 4).replaceAll("\n", "\n    ");
  return [
    "import base64",
    "import os",
    "",
    "from openai import OpenAI",
    "",
    // The client wants a key even where the server has none.
    'key = os.environ.get("CHAIRLIFT_API_KEY", "none")',
    `client = OpenAI(base_url="${origin}/v1", api_key=key)`,
    "answer = client.images.generate(",
    ...own.map((name) => `    ${name}=${serialise(settings[name])},`),
    ...(Object.keys(extra).length ? [`    extra_body=${body},`] : []),
    ")",
    "for number, image in enumerate(answer.data):",
    `    with open(f"picture-{number}.${settings.output_format ?? "png"}", "wb") as file:`,
    "        file.write(base64.b64decode(image.b64_json))",
  ].join("\n");
}
