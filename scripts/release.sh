#!/usr/bin/env bash
# Checks that VERSION can be released, builds it into dist/, checks what was built, and tags the commit. Pushes nothing.
#
#   scripts/release.sh VERSION [--address URL] [--skip-tests]
#
# --address: of the repository on the web, for links, pictures and URLs in the package; default: that of the remote origin.
# --skip-tests: where scripts/test.sh has passed on this commit already.
set -euo pipefail
cd "$(dirname "$0")/.."

refuse() {
    echo "error: $1" >&2
    echo "hint: $2" >&2
    exit 2
}

version=${1:-} address='' tests=1
[[ $version =~ ^[0-9]+\.[0-9]+\.[0-9]+((a|b|rc)[0-9]+)?$ ]] ||
    refuse "got ${version:-nothing}, expected a version such as 0.1.0 or 0.2.0rc1" "scripts/release.sh VERSION"
shift
while (($#)); do
    case $1 in
        --address) address=${2:?--address needs a URL} && shift 2 ;;
        --skip-tests) tests=0 && shift ;;
        *) refuse "unknown option $1" "known: --address URL, --skip-tests" ;;
    esac
done
if [[ -z $address ]]; then
    address=$(git remote get-url origin 2>/dev/null || true)
    address=$(sed -E 's#^(ssh://)?git@([^:/]+)[:/]#https://\2/#; s#\.git$##' <<<"$address")
fi
[[ $address =~ ^https://[^/]+/. ]] ||
    refuse "the address of the repository on the web is not known (remote origin: ${address:-none})" "--address https://HOST/OWNER/NAME"

tag=v$version
[[ -z $(git status --porcelain) ]] || refuse "the working tree has changes" "commit them, or put them aside with git stash -u"
git rev-parse -q --verify "refs/tags/$tag" >/dev/null && refuse "there is a tag $tag already" "take the next version"
stated=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' pics_cli/__init__.py)
[[ $stated == "$version" ]] || refuse "pics_cli/__init__.py says $stated" "set __version__ = \"$version\" and commit it"
grep -qE "^## \[${version//./\\.}\] - [0-9]{4}-[0-9]{2}-[0-9]{2}$" CHANGELOG.md ||
    refuse "CHANGELOG.md has no section ## [$version] - YYYY-MM-DD" "rename [Unreleased], and begin a new one above it"
[[ -z $(ls dist 2>/dev/null) ]] || refuse "dist/ is not empty" "move away what an earlier build left there"

((tests)) && scripts/test.sh

tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
python3 -m venv "$tools/venv"
"$tools/venv/bin/python" -m pip install --quiet --disable-pip-version-check build twine check-wheel-contents
git archive --prefix=source/ HEAD | tar -x -C "$tools"
"$tools/venv/bin/python" scripts/absolute_links.py "$tools/source" "$address" "$tag"
"$tools/venv/bin/python" -m build --outdir "$tools/dist" "$tools/source"
"$tools/venv/bin/twine" check --strict "$tools"/dist/*
"$tools/venv/bin/check-wheel-contents" "$tools"/dist/*.whl
mkdir -p dist
mv "$tools"/dist/* dist/
git tag -a "$tag" -m "pics $version"
echo
echo "built and tagged $tag: $(ls dist | tr '\n' ' ')"
echo "next: git push origin $tag; twine upload dist/*"
