# pgweave as a container: the fan-out service by default, any other command by its name.
FROM node:22-bookworm-slim AS build
WORKDIR /build
COPY package.json package-lock.json .npmrc ./
COPY scripts ./scripts
COPY tsconfig.json tsconfig.build.json ./
COPY src ./src
COPY web ./web
# Servers for tests and demo stay out: they are optional packages.
RUN npm ci --omit=optional && npm prune --omit=dev --omit=optional --ignore-scripts

FROM node:22-bookworm-slim
ENV NODE_ENV=production XDG_STATE_HOME=/state
WORKDIR /app
COPY --from=build /build/package.json ./
COPY --from=build /build/node_modules ./node_modules
COPY --from=build /build/dist ./dist
# The root file system may be read-only; /state is all that is written.
RUN mkdir /state && chown node:node /state
VOLUME /state
USER node
EXPOSE 3000
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s CMD ["node", "-e", "fetch('http://127.0.0.1:3000/health').then((r) => process.exit(r.ok ? 0 : 1), () => process.exit(1))"]
ENTRYPOINT ["node", "dist/cli/main.js"]
CMD ["fanout", "run", "--health-host", "0.0.0.0", "--log-format", "json"]
