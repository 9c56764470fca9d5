async function main() {
  for (const numbers of [[1, 2], [3, 4, 5]]) {
    const answer = await fetch(`http://127.0.0.1:${process.argv[2]}/`, { method: "POST", body: JSON.stringify(numbers) });
    console.log(await answer.json());
  }
}
main();
