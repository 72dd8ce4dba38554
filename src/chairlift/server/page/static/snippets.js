// The form's request as code: against POST /v1/images/generations, or POST /v1/jobs for videos.

import { serialise } from "./api.js";

/** Arguments of the openai client's own; the others go into extra_body. */
const OPENAI = ["prompt", "n", "size", "output_format", "output_compression"];

/** JSON, in the quotes of a shell. */
function quoted(settings) {
  return `'${serialise(settings, 2).replaceAll("'", "'\\''")}'`;
}

/** A command line. */
function curl(settings, origin) {
  return [
    `curl ${origin}/v1/images/generations \\`,
    '  -H "Authorization: Bearer $CHAIRLIFT_API_KEY" \\',
    '  -H "Content-Type: application/json" \\',
    "  -o answer.json \\",
    `  -d ${quoted(settings)}`,
  ].join("\n");
}

/** Python, with the openai client. */
function python(settings, origin) {
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

/** Command lines: send it, wait, fetch the files. */
function videoCurl(settings, origin) {
  const last = Math.max(1, Number(settings.n) || 1) - 1;
  return [
    'key="Authorization: Bearer $CHAIRLIFT_API_KEY"',
    `job=$(curl -s ${origin}/v1/jobs -H "$key" \\`,
    '  -H "Content-Type: application/json" \\',
    `  -d ${quoted(settings)} \\`,
    "  | grep -o 'job_[0-9a-f]*' | head -n 1)",
    `url=${origin}/v1/jobs/$job`,
    `while curl -sf "$url?wait_s=60" -H "$key" | grep -q '"finished_at":null'; do :; done`,
    `curl -f "$url/images/[0-${last}]" -H "$key" -o "video-#1.mp4"`,
  ].join("\n");
}

/** Python: the same, with what the openai client is made of. */
function videoPython(settings, origin) {
  const body = serialise(settings, 4).replaceAll("\n", "\n    ");
  return [
    "import os",
    "",
    "import httpx",
    "",
    `headers = {"Authorization": f"Bearer {os.environ.get('CHAIRLIFT_API_KEY', 'none')}"}`,
    `with httpx.Client(base_url="${origin}", headers=headers, timeout=600) as http:`,
    `    body = ${body}`,
    '    job = http.post("/v1/jobs", json=body).raise_for_status().json()',
    '    while job["finished_at"] is None:',
    `        job = http.get(f"/v1/jobs/{job['id']}?wait_s=60").raise_for_status().json()`,
    '    for video in job["images"]:',
    `        with open(f"video-{video['index']}.mp4", "wb") as file:`,
    '            file.write(http.get(video["url"]).raise_for_status().content)',
  ].join("\n");
}

/** By what is made, then by language. */
export const SNIPPETS = {
  picture: { curl, python },
  video: { curl: videoCurl, python: videoPython },
};
